"""Checks of theta against the records of the run."""

from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from learner.storage.checkpoint import load_theta, read_header
from learner.storage.records import read_records
from protos.unspool.v1.admin_pb2 import StopRequest
from tests.faults.configs import LANES
from tests.faults.processes import FaultyRun


def newest_checkpoint(run: FaultyRun) -> Path:
    """Return the path of the newest checkpoint."""
    return max((run.path / "checkpoints").glob("step-*.safetensors"))


def applied(run: FaultyRun) -> NDArray[np.float32]:
    """Return theta of the newest checkpoint: how often each estimate was applied, `[lanes, seqs]`."""
    estimator = run.config.experiment["estimators"][0]
    shape = (LANES, estimator["truncated_step"]["seqs"])
    like = {"applied": jax.ShapeDtypeStruct(shape, np.float32)}
    return np.asarray(load_theta(newest_checkpoint(run), like)["applied"])


def watermarks(run: FaultyRun) -> list[int]:
    """Return the last applied estimate of each lane in the newest checkpoint."""
    return [mark.watermark for mark in read_header(newest_checkpoint(run))["lanes"]]


def contributions(run: FaultyRun) -> int:
    """Return the total number of estimates in all updates, from the metrics table."""
    return sum(record.contributions for record in read_records(run.path / "metrics" / "outer.csv"))


def last_applied(counts: NDArray[np.float32]) -> list[int]:
    """Return the greatest seq of each lane that theta contains."""
    return [int(np.flatnonzero(row)[-1]) + 1 if row.any() else 0 for row in counts]


def assert_exactly_once(run: FaultyRun) -> None:
    """Stop the run and check its last checkpoint: every estimate is applied at most once, and the totals
    agree.

    In `sync`, also check that no estimate is missing.
    """
    with run.admin() as admin:
        admin.ask(StopRequest())
    assert run.exit_code("learner") == 0, run.logs()
    counts = applied(run)
    assert set(np.unique(counts)) == {0.0, 1.0}
    assert last_applied(counts) == watermarks(run)
    assert int(counts.sum()) == contributions(run)
    if run.config.aggregation.mode == "sync":
        assert int(counts.sum()) == sum(watermarks(run))
        assert len(set(watermarks(run))) == 1
