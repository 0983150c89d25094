"""Prometheus metrics computed from a status."""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from learner.servers.metrics import RunMetrics
from protos.unspool.v1.admin_pb2 import CheckpointInfo, LaneStatus, Status, WorkerStatus


def samples(status: Status, staleness: dict[int, int] | None = None) -> dict[tuple[str, ...], float]:
    """Return the values by name and label values."""
    text = RunMetrics(lambda: status, lambda: staleness or {}).text().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_progress_and_problems_are_gauges() -> None:
    found = samples(Status(outer_step=7, outer_steps=20, term=2, buffered=3, problems=["a", "b"]))
    assert found["unspool_outer_step",] == 7
    assert found["unspool_outer_steps",] == 20
    assert found["unspool_term",] == 2
    assert found["unspool_buffered",] == 3
    assert found["unspool_problems",] == 2


def test_values_that_do_not_exist_yet_are_absent() -> None:
    names = {name for name, *_ in samples(Status())}
    assert names.isdisjoint({"unspool_outer_loss", "unspool_grad_norm", "unspool_checkpoint_age_seconds"})


@pytest.mark.parametrize("loss", [0.0, 1.5, math.inf])
def test_values_of_the_last_update_appear_once_they_exist(loss: float) -> None:
    status = Status(loss=loss, grad_norm=2.0, diverged_tasks=3, checkpoint=CheckpointInfo(age_s=4.0))
    found = samples(status)
    assert found["unspool_outer_loss",] == loss
    assert found["unspool_grad_norm",] == 2.0
    assert found["unspool_diverged_tasks",] == 3
    assert found["unspool_checkpoint_age_seconds",] == 4.0


def test_totals_of_the_run_are_counters() -> None:
    found = samples(
        Status(
            outer_step=7, inner_steps=700, verdicts={"APPLIED": 6, "STALE": 1}, access_denials={"no_token": 2}
        )
    )
    assert found["unspool_updates_total",] == 7
    assert found["unspool_inner_steps_total",] == 700
    assert (found["unspool_pushes_total", "applied"], found["unspool_pushes_total", "stale"]) == (6, 1)
    assert found["unspool_access_denials_total", "no_token"] == 2


def test_workers_lanes_and_run_are_counted_by_state_including_states_without_any() -> None:
    found = samples(
        Status(
            state="RUNNING",
            workers=[WorkerStatus(state="active"), WorkerStatus(state="active"), WorkerStatus(state="stuck")],
            lanes=[LaneStatus(state="granted")],
        )
    )
    assert (found["unspool_workers", "active"], found["unspool_workers", "stuck"]) == (2, 1)
    assert (found["unspool_lanes", "granted"], found["unspool_lanes", "free"]) == (1, 0)
    assert (found["unspool_run", "running"], found["unspool_run", "failed"]) == (1, 0)


def test_staleness_is_a_cumulative_histogram() -> None:
    found = samples(Status(), staleness={0: 5, 3: 2, 100: 1})
    assert [found["unspool_staleness_bucket", bound] for bound in ("0", "2", "4", "32", "+Inf")] == [
        5,
        5,
        7,
        7,
        8,
    ]
    assert (found["unspool_staleness_count",], found["unspool_staleness_sum",]) == (8, 106)
