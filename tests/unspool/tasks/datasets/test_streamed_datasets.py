"""Data sets of plain iterators, as code written for the tutorials makes them."""

import concurrent.futures
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.tasks.base import Task
from unspool.tasks.datasets.base import SPLITS, Datasets, EndOfDataError, Split
from unspool.training import get_batches, vec_get_batch
from unspool.types import Batch, Params, PRNGKey, Scalar


def counted(start: int = 0) -> Iterator[np.ndarray]:
    """Batches `[2]` of the numbers that the batches are counted with."""
    return (np.full((2,), number, np.float32) for number in itertools.count(start))


def of_iterators(**given: Any) -> Datasets:
    defaults = {split: counted(100 * index) for index, split in enumerate(SPLITS)}
    return Datasets(**{**defaults, **given})


class Streaming(Task):
    """Its data comes from iterators, and its loss is the mean of the batch."""

    def __init__(self, **given: Any) -> None:
        self.datasets = of_iterators(**given)

    def init(self, key: PRNGKey) -> Params:
        return jnp.zeros(())

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        return params + jnp.mean(data)


def test_batches_come_in_the_order_of_the_iterator_and_are_stacked() -> None:
    task = Streaming()
    assert get_batches(task, (2, 3))[..., 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert vec_get_batch(task, 2, split="outer_valid")[:, 0].tolist() == [200, 201]
    assert isinstance(get_batches(task, (1,), numpy=True), np.ndarray)


def test_threads_share_one_sequence() -> None:
    train = of_iterators().train
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(lambda _: float(next(train)[0]), range(60)))
    assert sorted(seen) == list(range(60))


def test_an_iterator_that_ends_is_named_with_what_it_gave_and_the_remedy() -> None:
    task = Streaming(outer_valid=itertools.islice(counted(), 3))
    assert get_batches(task, (2,), "outer_valid").shape == (2, 2)
    with pytest.raises(
        EndOfDataError, match=r"Streaming.*'outer_valid' ended after 3 batches; let it restart"
    ):
        get_batches(task, (2,), "outer_valid")


def test_batches_of_different_shapes_are_rejected_by_name() -> None:
    task = Streaming(train=iter([np.zeros(2), np.zeros(1)]))
    with pytest.raises(ValueError, match=r"'train' of Streaming: .*\(1,\) and \(2,\)"):
        get_batches(task, (2,))


@pytest.mark.parametrize(
    ("given", "remedy"), [([np.zeros(2)], "iter"), (counted, "call it"), (None, "iterator of batches")]
)
def test_what_is_no_iterator_is_rejected_by_name(given: Any, remedy: str) -> None:
    with pytest.raises(TypeError, match=rf"Datasets\(test=\w+\): .*{remedy}"):
        of_iterators(test=given)


def test_splits_may_be_of_either_kind() -> None:
    split = Split(lambda: np.zeros((8, 2)), batch_size=4)
    datasets = of_iterators(test=split)
    assert datasets.test is split
    assert datasets.resident(["test"]) == {"test": split}
    assert datasets.resident(["test", "train"]) is None


def test_the_abstract_batch_takes_no_batch() -> None:
    datasets = of_iterators()
    assert datasets.abstract_batch == jax.ShapeDtypeStruct((2,), jnp.float32)
    assert next(datasets.train).tolist() == [0, 0]
    resident = of_iterators(train=Split(lambda: {"x": np.zeros((8, 3), np.int32)}, batch_size=4))
    assert resident.abstract_batch == {"x": jax.ShapeDtypeStruct((4, 3), jnp.int32)}
    given = jax.ShapeDtypeStruct((7,), jnp.float32)
    assert of_iterators(abstract_batch=given).abstract_batch is given
    with pytest.raises(EndOfDataError, match="'train' ended after 0 batches"):
        _ = of_iterators(train=iter([])).abstract_batch


def test_what_else_is_known_of_the_data_cannot_be_changed() -> None:
    info: Any = of_iterators(extra_info={"num_classes": 3}).extra_info
    assert info == {"num_classes": 3}
    with pytest.raises(TypeError):
        info["num_classes"] = 4
