"""Which split and which key the batches of a step come from."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.tiny_tasks import VALUE_OF_SPLIT, FollowTheData
from unspool.outer_trainers.truncated_step import ResidentData
from unspool.steps.lopt_step_data import InnerBatches
from unspool.steps.lopt_step_state import step_keys
from unspool.tasks.base import Task, single_task_to_family
from unspool.tasks.datasets.base import SPLITS, Datasets, datasets_from
from unspool.tasks.quadratics import QuadraticTask

TASKS = 3
KEYS = step_keys(jax.random.PRNGKey(0), TASKS)


class Counting(FollowTheData):
    """Examples are the numbers from 0 to 99."""

    datasets = datasets_from(lambda _: np.arange(100.0, dtype=np.float32), batch_size=5)


class Streamed(Task):
    """Batches of iterators, which count up."""

    def __init__(self) -> None:
        self.datasets = Datasets(**{name: iter(map(np.float32, range(100))) for name in SPLITS})


def batches(task: Task, meta: str | None = None, outer: str = "train") -> InnerBatches:
    return InnerBatches(single_task_to_family(task), TASKS, meta, outer, "label")


def resident(source: InnerBatches) -> ResidentData:
    data = source.resident()
    assert data is not None
    return data


@pytest.mark.parametrize(
    ("meta", "outer", "splits"),
    [
        (None, "train", {"train"}),
        ("outer_valid", "train", {"train", "outer_valid"}),
        ("train", "test", {"train", "test"}),
        ("outer_valid", "test", {"train", "outer_valid", "test"}),
    ],
)
def test_only_the_required_splits_are_on_the_device(meta: str | None, outer: str, splits: set[str]) -> None:
    assert set(resident(batches(FollowTheData(), meta, outer)).arrays) == splits


def test_the_reported_loss_has_batches_of_its_own_split() -> None:
    source = batches(FollowTheData(), "outer_valid")
    for data in (resident(source), source.from_host(None)):
        train, meta = source.of_step(data, KEYS)
        assert train.shape[0] == meta.shape[0] == TASKS
        assert (set(train.ravel().tolist()), set(meta.ravel().tolist())) == (
            {VALUE_OF_SPLIT["train"]},
            {VALUE_OF_SPLIT["outer_valid"]},
        )


def test_every_task_draws_its_batch_by_its_own_key() -> None:
    source = batches(Counting())
    train, meta = source.of_step(resident(source), KEYS)
    again, _ = source.of_step(resident(source), KEYS)
    np.testing.assert_array_equal(train, again)
    assert (train.shape, meta) == ((TASKS, 5), ())
    assert len({tuple(row) for row in np.asarray(train).tolist()}) == TASKS


def test_host_batches_lead_with_steps_and_tasks() -> None:
    taken = batches(Streamed()).of_split("train", 2)
    assert taken.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_task_without_data_has_empty_batches() -> None:
    source = batches(QuadraticTask(2), "train")
    assert source.from_host(4) == ()
    assert source.of_step(resident(source), KEYS) == ((), ())


@pytest.mark.parametrize(
    ("meta", "outer", "expected"),
    [(None, "train", 0.0), ("test", "test", 2.0), ("test", "train", 1.0)],
)
def test_losses_without_a_step_take_the_part_of_their_split(meta: Any, outer: str, expected: float) -> None:
    data: Any = 0.0 if meta is None else (1.0, 2.0)
    assert batches(Streamed(), meta, outer).outer_of_step(data) == expected


def test_a_split_that_is_not_streamed_is_rejected_with_those_that_are() -> None:
    message = r"outer_data_split='test'\): .*batches of train and outer_valid; choose"
    with pytest.raises(ValueError, match=message):
        batches(Streamed(), "outer_valid", "test").outer_of_step((1.0, 2.0))


def test_batches_of_an_iterator_cannot_be_drawn_by_key() -> None:
    assert batches(Streamed()).resident() is None
    with pytest.raises(ValueError, match="label: the split 'train' is an iterator"):
        batches(Streamed()).drawn("train", ResidentData({"train": jnp.zeros(3)}), KEYS.train_data)
