"""Checkpoints of a theta of three numbers, each equal to its outer step."""

import dataclasses
from typing import Any

import numpy as np

from learner.storage.checkpoint import Checkpoint, LaneMark
from learner.storage.snapshots import SnapshotRef
from learner.storage.thetas import Published

CONFIG = "c" * 64
LIKE = {"theta": {"w": np.zeros(3, np.float32)}, "learner_state": {"count": np.zeros((), np.int32)}}


def theta_of(outer_step: int) -> dict[str, Any]:
    return {"w": np.full(3, outer_step, np.float32)}


def make_checkpoint(outer_step: int = 5, **changes: Any) -> Checkpoint:
    thetas = tuple(Published.of(v, theta_of(v)["w"].tobytes()) for v in range(outer_step - 2, outer_step + 1))
    made = Checkpoint(
        run_id="run",
        term=2,
        config_sha256=CONFIG,
        seed=7,
        theta=theta_of(outer_step),
        learner_state={"count": np.int32(outer_step)},
        thetas=thetas,
        lanes=(
            LaneMark(0, outer_step, 1 << 32, SnapshotRef(0, outer_step - 2, "s" * 64)),
            LaneMark(1, outer_step, 3, None),
        ),
        inner_steps=1234,
        elapsed_s=56.5,
        moved_at=outer_step - 1,
    )
    return dataclasses.replace(made, **changes)
