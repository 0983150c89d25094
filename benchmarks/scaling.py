"""The cost of one PES estimate by number of tasks, length of truncations and size of theta."""

from collections.abc import Iterator

from benchmarks.compiled import Cost, cost
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import LogUniformLengthSchedule
from unspool.tasks.base import single_task_to_family
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32

BASE = {"num_tasks": 8, "trunc_length": 20, "hidden_size": 32}
VALUES = {"num_tasks": (2, 8, 32), "trunc_length": (10, 20, 100), "hidden_size": (8, 32, 64)}


def growth(seconds: float) -> Iterator[Cost]:
    """Returns one line for the MLP problem, and one for each change of one of its three sizes."""
    yield of_sizes("MLP, " + ", ".join(f"{name} {size}" for name, size in BASE.items()), BASE, seconds)
    for name, values in VALUES.items():
        for value in values:
            if value != BASE[name]:
                yield of_sizes(f"MLP, {name} {value}", {**BASE, name: value}, seconds)


def of_sizes(label: str, sizes: dict[str, int], seconds: float) -> Cost:
    """The cost with these sizes."""
    step = VectorizedLOptTruncatedStep(
        single_task_to_family(ImageMLP_Digits8_Relu32()),
        MLPLOpt(hidden_size=sizes["hidden_size"]),
        LogUniformLengthSchedule(100, 1000),
        sizes["num_tasks"],
    )
    return cost(label, TruncatedPES(step, sizes["trunc_length"]), seconds)
