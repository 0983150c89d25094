"""One example of every task and family of the library, for tests of all of them."""

import jax

from unspool.tasks.base import Task, TaskFamily, single_task_to_family
from unspool.tasks.datasets.base import sample_batch
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import (
    BatchQuadraticTask,
    FixedDimQuadraticFamily,
    FixedDimQuadraticFamilyData,
    LogQuadraticTask,
    NoisyMeanQuadraticTask,
    NoisyQuadraticFamily,
    QuadraticTask,
    SumQuadraticTask,
)
from unspool.types import Batch

TASKS = [
    QuadraticTask(5),
    NoisyMeanQuadraticTask(),
    BatchQuadraticTask(),
    LogQuadraticTask(),
    SumQuadraticTask(),
    ImageMLP_Digits8_Relu32(),
]

FAMILIES = [
    FixedDimQuadraticFamily(4),
    FixedDimQuadraticFamilyData(4),
    NoisyQuadraticFamily(4, cov=0.5),
    single_task_to_family(ImageMLP_Digits8_Relu32()),
]

SAMPLED_TASKS = [family.sample_task(jax.random.key(11)) for family in FAMILIES[:3]]


def batch_of(task: Task | TaskFamily, seed: int = 0) -> Batch:
    if task.datasets is None:
        return ()
    return sample_batch(task.datasets.train.arrays, jax.random.key(seed), task.datasets.train.batch_size)
