"""The batches of a learned optimizer's step, for training and for the reported loss."""

import dataclasses

import jax

from unspool import training
from unspool.steps.lopt_step_state import StepKeys
from unspool.steps.step_outputs import ResidentData
from unspool.tasks.base import TaskFamily
from unspool.tasks.datasets.base import SPLITS, sample_batch
from unspool.types import Batch, PRNGKey


@dataclasses.dataclass(frozen=True)
class InnerBatches:
    """The source of the batches of `num_tasks` inner training runs.

    Batches of a data set on the device are drawn by key inside the compiled unroll; batches of iterators are
    streamed from the host.

    Attributes:
        task_family: the owner of the data.
        num_tasks: number of parallel inner training runs.
        meta_loss_split: the split of the reported loss, if it has batches of its own; else None.
        outer_data_split: the split for losses without a step.
        label: the name of the step in errors.
    """

    task_family: TaskFamily
    num_tasks: int
    meta_loss_split: str | None
    outer_data_split: str
    label: str

    def from_host(self, steps: int | None) -> Batch:
        """Return training batches; `(train, meta)` if the reported loss has batches of its own."""
        train = self.of_split("train", steps)
        if self.task_family.datasets is None or self.meta_loss_split is None:
            return train
        return train, self.of_split(self.meta_loss_split, steps)

    def of_split(self, split: str, steps: int | None) -> Batch:
        """Return host batches `[steps, num_tasks, ...]` of a split, without the first axis for None."""
        shape = (self.num_tasks,) if steps is None else (steps, self.num_tasks)
        return training.get_batches(self.task_family, shape, split)

    def resident(self) -> ResidentData | None:
        """Return the required splits, if all are on the device; None if one is streamed."""
        datasets = self.task_family.datasets
        if datasets is None:
            return ResidentData({})
        wanted = {"train", self.outer_data_split, self.meta_loss_split}
        splits = datasets.resident([split for split in SPLITS if split in wanted])
        return None if splits is None else ResidentData({name: one.arrays for name, one in splits.items()})

    def of_step(self, data: Batch, keys: StepKeys) -> tuple[Batch, Batch]:
        """Return a step's batches for training and for the reported loss, leaves `[num_tasks, ...]`."""
        if not isinstance(data, ResidentData):
            return (data, ()) if self.meta_loss_split is None else data
        train = self.drawn("train", data, keys.train_data)
        if self.meta_loss_split is None:
            return train, ()
        return train, self.drawn(self.meta_loss_split, data, keys.outer_data)

    def outer_of_step(self, data: Batch) -> Batch:
        """Return the part of a step's data that is of the split `outer_data_split`.

        Raises:
            ValueError: the step's batches are streamed, and none is of that split.
        """
        if isinstance(data, ResidentData) or self.task_family.datasets is None:
            return data
        of_splits = {"train": data}
        if self.meta_loss_split is not None:
            of_splits = {"train": data[0], self.meta_loss_split: data[1]}
        if self.outer_data_split not in of_splits:
            raise ValueError(
                f"VectorizedLOptTruncatedStep(outer_data_split={self.outer_data_split!r}): the data of "
                f"{self.label} is streamed from iterators, and steps receive only batches of "
                f"{' and '.join(of_splits)}; choose one of these, or build the data set from Splits"
            )
        return of_splits[self.outer_data_split]

    def drawn(self, split: str, data: ResidentData, keys: PRNGKey) -> Batch:
        """Return a batch of a split for each of `keys` `[num_tasks]`, which are consumed.

        Raises:
            ValueError: the split is streamed.
        """
        if self.task_family.datasets is None:
            return ()
        resident = self.task_family.datasets.resident([split])
        if resident is None:
            raise ValueError(f"{self.label}: the split {split!r} is an iterator; pass its batches explicitly")
        batch_size = resident[split].batch_size
        return jax.vmap(lambda key: sample_batch(data.arrays[split], key, batch_size))(keys)
