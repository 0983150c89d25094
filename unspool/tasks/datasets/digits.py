"""The 1,797 real 8x8 images of handwritten digits that are included in scikit-learn.

This is the default data set: it needs no download. Source: E. Alpaydin, C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI (1998), its test part.
"""

import functools
from importlib import metadata
from pathlib import Path

import numpy as np

from unspool.tasks.datasets.base import Datasets, datasets_from
from unspool.types import PyTree

_PERMUTATION_SEED = 0
_MAX_PIXEL = 16.0
_IMAGE_SHAPE = (8, 8, 1)


@functools.cache
def digits_datasets(batch_size: int = 64) -> Datasets:
    """Return the digits as batches of `image` `[batch, 8, 8, 1]` in [0, 1] and `label` `[batch]`.

    After one fixed permutation the last fifth is `test`; of the rest, 80 % is `train`, 10 % `inner_valid` and
    10 % `outer_valid`.
    """
    return datasets_from(_load_split, batch_size, extra_info={"num_classes": 10})


def _load_split(name: str) -> PyTree:
    return _load()[name]


@functools.cache
def _load() -> dict[str, PyTree]:
    table = np.loadtxt(_path(), delimiter=",", dtype=np.float32)
    table = np.random.default_rng(_PERMUTATION_SEED).permutation(table)
    num_examples = len(table)
    test_start = num_examples * 8 // 10
    bounds = [test_start * 8 // 10, test_start * 9 // 10, test_start]
    names = ("train", "inner_valid", "outer_valid", "test")
    return {
        name: {
            "image": (rows[:, :-1] / _MAX_PIXEL).reshape(-1, *_IMAGE_SHAPE),
            "label": rows[:, -1].astype(np.int32),
        }
        for name, rows in zip(names, np.split(table, bounds), strict=True)
    }


def _path() -> Path:
    # `sklearn.datasets.load_digits` reads the same file, but importing it costs 75 MB and a second in every
    # worker.
    path = Path(str(metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))
    if not path.is_file():
        raise FileNotFoundError(
            f"the digits come with scikit-learn, but {path} is missing: reinstall scikit-learn"
        )
    return path
