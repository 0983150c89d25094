"""Reading the standard IDX files, and refusing what is not one."""

import gzip
import struct
from pathlib import Path

import jax
import numpy as np
import pytest

from unspool.tasks.datasets.idx import fashion_mnist_datasets, mnist_datasets, read_idx, resize_by_area
from unspool.tasks.fixed.image_mlp import ImageMLP, ImageMLP_FashionMnist8_Relu32

HEADER = bytes([0, 0, 8, 1]) + struct.pack(">I", 3)


def write_idx(path: Path, array: np.ndarray) -> None:
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture(params=["", ".gz"], ids=["plain", "gzipped"])
def data_dir(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twenty training and ten test images, the n-th of which is filled with n."""
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    for prefix, count in (("train", 20), ("t10k", 10)):
        images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None], (count, 28, 28))
        write_idx(folder / f"{prefix}-images-idx3-ubyte{request.param}", images)
        write_idx(
            folder / f"{prefix}-labels-idx1-ubyte{request.param}", np.arange(count, dtype=np.uint8) % 10
        )
    monkeypatch.setenv("UNSPOOL_DATA_DIR", str(tmp_path))
    return folder


@pytest.mark.usefixtures("data_dir")
def test_splits_are_cut_from_the_standard_files() -> None:
    datasets = fashion_mnist_datasets(batch_size=1)
    numbers = {
        name: np.round(datasets.split(name).host_arrays["image"][:, 0, 0, 0] * 255).tolist()
        for name in ("train", "inner_valid", "outer_valid", "test")
    }
    assert numbers == {
        "train": list(range(16)),
        "inner_valid": [16, 17],
        "outer_valid": [18, 19],
        "test": list(range(10)),
    }


@pytest.mark.usefixtures("data_dir")
def test_images_are_scaled_resized_and_keep_their_labels() -> None:
    batch = next(fashion_mnist_datasets(batch_size=4, image_size=(8, 8)).train)
    assert batch["image"].shape == (4, 8, 8, 1)
    np.testing.assert_allclose(batch["image"][:, 3, 5, 0] * 255 % 10, batch["label"], atol=1e-4)


@pytest.mark.usefixtures("data_dir")
def test_a_task_trains_on_the_files() -> None:
    task = ImageMLP(data="FashionMnist", image_size=8, hidden_sizes=(32,), batch_size=4)
    loss = task.loss(task.init(jax.random.key(0)), jax.random.key(1), next(task.datasets.train))
    assert 1.0 < loss < 5.0


def test_a_task_without_its_files_fails_when_data_is_needed_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("UNSPOOL_DATA_DIR", raising=False)
    task = ImageMLP_FashionMnist8_Relu32()
    assert task.name == "ImageMLP_FashionMnist8_Relu32"
    assert task.init(jax.random.key(0))["mlp/~/linear_0"]["w"].shape == (64, 32)
    with pytest.raises(
        FileNotFoundError, match=r"train-images-idx3-ubyte.* set UNSPOOL_DATA_DIR to the folder"
    ):
        next(task.datasets.train)


def test_a_missing_file_is_named_with_its_folder(data_dir: Path) -> None:
    for path in data_dir.glob("t10k-labels*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"t10k-labels-idx1-ubyte.* is missing from {data_dir}"):
        next(fashion_mnist_datasets(batch_size=1).test)


def test_data_that_arrives_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSPOOL_DATA_DIR", str(tmp_path))
    test_split = mnist_datasets(batch_size=1).test
    with pytest.raises(FileNotFoundError):
        next(test_split)
    (tmp_path / "mnist").mkdir()
    write_idx(tmp_path / "mnist" / "t10k-images-idx3-ubyte", np.zeros((2, 28, 28), np.uint8))
    write_idx(tmp_path / "mnist" / "t10k-labels-idx1-ubyte", np.zeros(2, np.uint8))
    assert next(test_split)["label"].tolist() == [0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "it starts with , expected 00000801"),
        (b"\x89PNG\r\n\x1a\n", "it starts with 89504e47"),
        (bytes([0, 0, 0x0D, 1]) + HEADER[4:] + b"abc", "it starts with 00000d01"),
        (HEADER[:6], "its header is cut short"),
        (HEADER + b"ab", "announces 3 bytes of data, but it contains only 2"),
        (HEADER + b"abcd", "announces 3 bytes of data, but it contains more"),
        (
            HEADER[:4] + b"\xff\xff\xff\xff" + b"abc",
            "announces 4294967295 bytes of data, but it contains only 3",
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_malformed_file_is_rejected_by_name(
    tmp_path: Path, suffix: str, content: bytes, complaint: str
) -> None:
    path = tmp_path / f"labels{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(ValueError, match=f"{path} is not a valid IDX file: .*{complaint}"):
        read_idx(path, num_axes=1)


@pytest.mark.parametrize(
    "content", [b"not gzip", gzip.compress(HEADER + b"abc")[:-12]], ids=["not gzip", "cut short"]
)
def test_a_damaged_archive_is_rejected_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is not a valid IDX file"):
        read_idx(path, num_axes=1)


def test_images_and_labels_must_match(data_dir: Path) -> None:
    label_file = next(data_dir.glob("t10k-labels*"))
    write_idx(label_file, np.zeros(9, np.uint8))
    with pytest.raises(ValueError, match=r"has 10 images but .*t10k-labels.* has 9 labels"):
        next(fashion_mnist_datasets(batch_size=1).test)


def test_a_label_out_of_range_is_rejected(data_dir: Path) -> None:
    write_idx(next(data_dir.glob("t10k-labels*")), np.full(10, 10, np.uint8))
    with pytest.raises(ValueError, match="label 10 is out of range"):
        next(fashion_mnist_datasets(batch_size=1).test)


def test_resizing_to_a_divisor_averages_blocks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    blocks = images.reshape(5, 14, 2, 14, 2).mean((2, 4)) / 255
    np.testing.assert_allclose(resize_by_area(images, (14, 14)), blocks, atol=1e-6)


def test_resizing_weighs_partly_covered_pixels_by_their_share() -> None:
    image = np.asarray([[[0, 255, 255]]], np.uint8)
    np.testing.assert_allclose(resize_by_area(image, (1, 2))[0, 0], [1 / 3, 1.0], atol=1e-6)


def test_resizing_keeps_the_mean_brightness() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    np.testing.assert_allclose(
        resize_by_area(images, (8, 8)).mean((1, 2)), images.mean((1, 2)) / 255, rtol=1e-5
    )
