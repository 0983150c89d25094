"""What theta must be, by what the run has written down about itself."""

import json
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from learner.storage.checkpoint import load_theta, read_header
from learner.storage.records import read_records
from tests.faults.configs import LANES
from tests.faults.processes import FaultyRun


def newest_checkpoint(run: FaultyRun) -> Path:
    """Its path."""
    return max((run.path / "checkpoints").glob("step-*.safetensors"))


def applied(run: FaultyRun) -> NDArray[np.float32]:
    """Theta of the newest checkpoint: how often each estimate was applied, `[lanes, seqs]`."""
    estimator = run.config.experiment["estimators"][0]
    shape = (LANES, estimator["truncated_step"]["seqs"])
    like = {"applied": jax.ShapeDtypeStruct(shape, np.float32)}
    return np.asarray(load_theta(newest_checkpoint(run), like)["applied"])


def watermarks(run: FaultyRun) -> list[int]:
    """The last applied estimate of each lane, as the newest checkpoint has it."""
    return [mark["watermark"] for mark in json.loads(read_header(newest_checkpoint(run))["lanes"])]


def contributions(run: FaultyRun) -> int:
    """Estimates in all updates together, by the table of metrics."""
    return sum(record.contributions for record in read_records(run.path / "metrics" / "outer.csv"))


def last_applied(counts: NDArray[np.float32]) -> list[int]:
    """The greatest seq of each lane that theta contains."""
    return [int(np.flatnonzero(row)[-1]) + 1 if row.any() else 0 for row in counts]


def assert_exactly_once(run: FaultyRun) -> None:
    """End the run; by its last checkpoint, what was applied was applied once and is all that was counted.

    In `sync`, moreover, nothing is missing.
    """
    with run.admin() as admin:
        admin.stop(now=False)
    assert run.exit_code("learner") == 0, run.logs()
    counts = applied(run)
    assert set(np.unique(counts)) == {0.0, 1.0}
    assert last_applied(counts) == watermarks(run)
    assert int(counts.sum()) == contributions(run)
    if run.config.aggregation.mode == "sync":
        assert int(counts.sum()) == sum(watermarks(run))
        assert len(set(watermarks(run))) == 1
