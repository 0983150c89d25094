import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from learner.coordination.status import build_status, waiting_for
from learner.servers.metrics import RunMetrics
from learner.state.run_state import RunState
from learner.storage.update_record import Effect
from protos.messages import as_dict
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.admin_pb2 import Status
from protos.unspool.v1.learner_pb2 import UnrollInfo
from tests.learner.builders import Peer, WatchedCore, make_core, outcome, run_one_step, update
from tests.support.clock import Clock


@pytest.fixture
def core(tmp_path: Path, clock: Clock) -> WatchedCore:
    return make_core(tmp_path, clock, lanes=4)


def test_status_has_the_keys_that_are_promised(core: WatchedCore) -> None:
    Peer(core)
    status = as_dict(build_status(core.run))
    assert set(status) >= {
        "run", "state", "waiting_for", "outer_step", "outer_steps", "loss", "theta_sha256", "updates_per_s",
        "inner_steps_per_s", "staleness", "workers_desired", "workers", "lanes", "endpoints",
    }  # fmt: skip
    assert set(status["workers"][0]) >= {"name", "host", "state", "lanes"}
    assert set(status["lanes"][0]) >= {"lane", "worker", "seq", "inner_step"}


def test_status_is_json_with_numbers_as_numbers(core: WatchedCore) -> None:
    peer = Peer(core)
    run_one_step(core, peer)
    status = json.loads(json.dumps(as_dict(build_status(core.run)), allow_nan=False))
    assert (status["outer_step"], status["loss"], status["inner_steps"]) == (1, 1.5, 20)
    assert status["verdicts"] == {"ACCEPTED": 4, "APPLIED": 4}
    assert status["workers"][0]["lanes"] == [0, 1, 2, 3]


def test_what_is_not_there_yet_is_null(core: WatchedCore) -> None:
    status = as_dict(build_status(core.run))
    assert (status["loss"], status["grad_norm"], status["checkpoint"]) == (None, None, None)


def test_a_loss_that_is_no_number_is_null_in_json() -> None:
    assert as_dict(Status(loss=float("nan")))["loss"] is None


def test_rates_are_those_of_the_last_half_minute(core: WatchedCore, clock: Clock) -> None:
    peer = Peer(core)
    for _ in range(4):
        run_one_step(core, peer)
        clock.advance(2.0)
    status = build_status(core.run)
    assert status.updates_per_s == pytest.approx(4 / 8)
    assert status.inner_steps_per_s == pytest.approx(80 / 8)
    assert status.eta_s == pytest.approx(8 / 0.5)


def test_rates_fall_to_zero_when_nothing_happens(core: WatchedCore, clock: Clock) -> None:
    run_one_step(core, Peer(core))
    clock.advance(60.0)
    assert build_status(core.run).updates_per_s == 0.0


def no_workers(core: WatchedCore) -> None:
    core.admin.scale(2)


def two_lanes_missing(core: WatchedCore) -> None:
    peer = Peer(core, "w0")
    peer.beat(phase=learner_pb2.Heartbeat.COMPUTING)
    peer.push(0, 1)
    peer.push(2, 1)
    core.run.lanes.release(core.run.lanes[3])


def batch_complete(core: WatchedCore) -> None:
    peer = Peer(core)
    for lane in range(4):
        peer.push(lane, 1)
    core.updates.take_batch()


def paused(core: WatchedCore) -> None:
    Peer(core)
    core.admin.pause()


def idle_worker(core: WatchedCore) -> None:
    peer = Peer(core, "w0")
    peer.beat(phase=learner_pb2.Heartbeat.IDLE, waiting_for="outer step 3")


@pytest.mark.parametrize(
    ("situation", "text"),
    [
        (no_workers, "a worker (0 joined, 2 requested)"),
        (two_lanes_missing, "2 of 4 lanes: lane 1 on w0 (computing), lane 3 free"),
        (batch_complete, "the outer update"),
        (paused, "a resume command"),
        (idle_worker, "lane 0 on w0 (idle, waiting for outer step 3)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_status_says_what_the_run_waits_for(
    core: WatchedCore, situation: Callable[[WatchedCore], None], text: str
) -> None:
    situation(core)
    assert text in waiting_for(core.run)


def test_a_run_that_is_over_waits_for_nothing(core: WatchedCore) -> None:
    core.updates.end(RunState.FINISHED)
    assert waiting_for(core.run) == ""


def test_many_missing_lanes_are_counted_and_not_listed(tmp_path: Path) -> None:
    core = make_core(tmp_path, lanes=20)
    Peer(core)
    assert waiting_for(core.run).endswith("lane 3 on w0 (starting), 16 more")


def test_metrics_are_what_prometheus_reads(core: WatchedCore) -> None:
    run_one_step(core, Peer(core))
    core.run.telemetry.problems["checkpoint"] = "disk full"
    metrics = RunMetrics(lambda: build_status(core.run), lambda: dict(core.run.telemetry.counters.staleness))
    families = text_string_to_metric_families(metrics.text().decode())
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["unspool_updates_total",] == samples["unspool_outer_step",] == 1
    assert samples["unspool_pushes_total", "applied"] == 4
    assert samples["unspool_workers", "active"] == 1
    assert samples["unspool_lanes", "granted"] == 4
    assert samples["unspool_staleness_bucket", "0"] == samples["unspool_staleness_count",] == 4
    assert samples["unspool_problems",] == 1


def test_no_worker_is_a_label(core: WatchedCore) -> None:
    Peer(core, "name-of-a-worker")
    assert b"name-of-a-worker" not in RunMetrics(lambda: build_status(core.run), dict).text()


def test_tasks_that_diverged_reach_status_record_and_metrics(core: WatchedCore) -> None:
    peer = Peer(core)
    for lane in peer.lanes():
        peer.push(lane, 1, unroll_info=UnrollInfo(inner_steps=5, diverged_tasks=lane))
    update(core)
    record, status = core.run.telemetry.counters.last_update, core.status()
    assert record is not None
    assert (record.diverged_tasks, status.diverged_tasks) == (0 + 1 + 2 + 3, 6)
    assert b"unspool_diverged_tasks 6.0" in RunMetrics(core.status, core.staleness_counts).text()


def test_an_update_without_weight_has_no_loss(core: WatchedCore) -> None:
    peer = Peer(core)
    for lane in peer.lanes():
        peer.push(lane, 1)
    core.updates.take_batch()
    core.updates.applied(dataclasses.replace(outcome(1, Effect.EMPTY), loss=None))
    assert not core.status().HasField("loss")
    assert (core.status().grad_norm, core.status().staleness.max) == (1.0, 0)
