"""Configurations of small experiments of different cost; tests override the keys that they test."""

from types import MappingProxyType
from typing import Any, Final

from service.config.toml_document import with_overrides, write_tables


def _pes_on_quadratic(*, trunc_length: int, total_length: int) -> dict[str, Any]:
    return {
        "type": "TruncatedPES",
        "trunc_length": trunc_length,
        "num_tasks": 2,
        "truncation_schedule": {"type": "ConstantTruncationSchedule", "total_length": total_length},
        "task_family": {"type": "FixedDimQuadraticFamily", "dim": 3},
    }


QUADRATIC: Final = MappingProxyType(
    {
        "seed": 7,
        "outer_steps": 12,
        "learned_optimizer": {"type": "LearnableSGD"},
        "outer_optimizer": {"type": "sgd", "learning_rate": 0.1},
        "aggregation": {"lanes": 3},
        "estimators": [_pes_on_quadratic(trunc_length=10, total_length=20)],
    }
)
"""Lanes of PES on a quadratic in three dimensions; an estimate takes less than a millisecond."""

TINY: Final = MappingProxyType(
    {
        "seed": 1,
        "outer_steps": 4,
        "learned_optimizer": {"type": "LearnableSGD"},
        "outer_optimizer": {"type": "adam", "learning_rate": 1e-2},
        "aggregation": {"lanes": 1},
        "estimators": [_pes_on_quadratic(trunc_length=2, total_length=4)],
        "workers": {"count": 1},
        "checkpoint": {"every": 2},
    }
)
"""One lane and one worker, for tests of launches that do not depend on training."""

DIGITS: Final = MappingProxyType(
    {
        "seed": 3,
        "outer_steps": 30,
        "learned_optimizer": {"type": "MLPLOpt"},
        "outer_optimizer": {"type": "adam", "learning_rate": 1e-2, "clip": 3.0},
        "aggregation": {"mode": "sync", "lanes": 4},
        "estimators": [
            {
                "type": "TruncatedPES",
                "trunc_length": 15,
                "num_tasks": 8,
                "truncation_schedule": {
                    "type": "LogUniformLengthSchedule",
                    "min_length": 20,
                    "max_length": 90,
                },
                "task_family": {"type": "ImageMLP_Digits8_Relu32"},
            }
        ],
        "checkpoint": {"every": 7},
        "liveness": {"heartbeat_s": 0.5},
    }
)
"""Four lanes of a learned optimizer on digits, with updates slow enough for tests to interrupt them."""


def toml_of(experiment: MappingProxyType[str, Any], *overrides: str) -> str:
    """Return a configuration; `overrides` have the form of `--set`, e.g. `aggregation.lanes=2`."""
    return write_tables(with_overrides(experiment, overrides))
