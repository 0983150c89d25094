"""The digits of scikit-learn."""

import numpy as np

from unspool.tasks.datasets.digits import digits_datasets


def test_digits_are_the_images_of_scikit_learn_split_without_overlap() -> None:
    from sklearn.datasets import load_digits

    datasets = digits_datasets(batch_size=16)
    splits = [datasets.split(name).host_arrays for name in ("train", "inner_valid", "outer_valid", "test")]
    assert [len(split["label"]) for split in splits] == [1149, 144, 144, 360]
    images = np.concatenate([split["image"].reshape(-1, 64) for split in splits])
    labels = np.concatenate([split["label"] for split in splits])
    rows = {(*image, label) for image, label in zip((images * 16).tolist(), labels.tolist(), strict=True)}
    bundled = load_digits()
    assert rows == {
        (*image, label) for image, label in zip(bundled.data.tolist(), bundled.target.tolist(), strict=True)
    }


def test_a_batch_of_digits_has_the_documented_form() -> None:
    batch = next(digits_datasets(batch_size=16).train)
    assert (batch["image"].shape, batch["image"].dtype) == ((16, 8, 8, 1), np.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((16,), np.int32)
    assert batch["image"].min() >= 0.0
    assert 0.5 < batch["image"].max() <= 1.0
