"""Reports of exceptions that end workers."""

from pathlib import Path

import pytest

from learner.coordination.status import build_status
from learner.state.code_failures import SHOWN_S, CodeFailures
from learner.state.sessions import WorkerSession
from protos.unspool.v1 import common_pb2
from protos.unspool.v1.admin_pb2 import AbsentWorker, SupervisionNote
from protos.unspool.v1.learner_pb2 import JoinRequest, LaneFailure, LogLine
from tests.learner.builders import Peer, WatchedCore, make_core
from tests.support.clock import Clock
from unspool.failure_report import FailureReport, Frame

EXPIRED = common_pb2.FailureReport(
    type="RuntimeError",
    message="the licence has expired",
    path="/home/anna/my_task.py",
    line=9,
    function="loss",
)
SAID = "RuntimeError: the licence has expired (my_task.py:9 in loss)"


@pytest.fixture
def core(tmp_path: Path, clock: Clock) -> WatchedCore:
    return make_core(tmp_path, clock)


def session_of(session_id: str) -> WorkerSession:
    return WorkerSession(session_id, JoinRequest(worker_name="w0", host="here"), "secret", 0.0)


def fail(core: WatchedCore, life: int, lane: int = 0) -> Peer:
    peer = Peer(core, process_uuid=f"life-{life}")
    fencing_token = core.run.lanes[lane].fencing_token
    message = LaneFailure(
        lane=lane, fencing_token=fencing_token, seq=1, traceback="a\nJAX's note", report=EXPIRED
    )
    core.lane_failed(peer.session_id, message)
    core.log(peer.session_id, LogLine(level="error", text="w0 exits 70", failure=EXPIRED))
    core.leave(peer.session_id, "exits 70")
    return peer


def test_the_first_failure_is_a_problem_and_an_event_with_the_users_own_line(core: WatchedCore) -> None:
    fail(core, 0)
    assert f"workers end with {SAID}" in build_status(core.run).problems
    failed = [event.text for event in core.run.telemetry.events.latest(100) if event.kind == "lane_failed"]
    assert failed == [f"lane 0 at seq 1 on w0 (here): {SAID}"]


def test_a_process_that_tells_twice_counts_once(core: WatchedCore, clock: Clock) -> None:
    for life in range(2):
        fail(core, life)
    clock.advance(5.0)
    (summary,) = build_status(core.run).failures
    assert (summary.count, summary.worker, summary.lane, summary.age_s) == (2, "w0", 0, 5.0)
    assert summary.failure == EXPIRED


def test_an_exception_outside_of_estimates_is_a_problem_too(core: WatchedCore) -> None:
    peer = Peer(core)
    core.log(peer.session_id, LogLine(level="error", text="w0 exits 70", failure=EXPIRED))
    assert f"workers end with {SAID}" in build_status(core.run).problems


def test_messages_that_differ_in_numbers_are_one_failure() -> None:
    failures = CodeFailures(Clock())
    for number in range(3):
        report = FailureReport("OSError", f"port {number} is taken", Frame("/a/t.py", 3, "f"))
        failures.add(report, session_of(f"w0#{number}"))
    assert [failure.count for failure in failures.recent()] == [3]


def test_a_failure_of_long_ago_is_no_problem_any_more() -> None:
    clock = Clock()
    failures = CodeFailures(clock)
    failures.add(FailureReport("OSError", "", None), session_of("w0#1"))
    clock.advance(SHOWN_S + 1.0)
    assert failures.recent() == []


def test_what_a_supervisor_says_is_shown_until_it_is_silent(core: WatchedCore, clock: Clock) -> None:
    absent = AbsentWorker(name="w2", state="cannot be placed", age_s=3.0)
    core.admin.note_supervision(SupervisionNote(problems=["no room"], absent_workers=[absent]))
    clock.advance(2.0)
    status = build_status(core.run)
    assert "no room" in status.problems
    assert [(one.name, one.state, one.age_s) for one in status.absent_workers] == [
        ("w2", "cannot be placed", 5.0)
    ]
    clock.advance(100.0)
    status = build_status(core.run)
    assert (list(status.problems), list(status.absent_workers)) == ([], [])


def test_a_problem_of_a_supervisor_is_one_event_however_often_it_is_said(core: WatchedCore) -> None:
    for _ in range(3):
        core.admin.note_supervision(SupervisionNote(problems=["no room"]))
    assert [event.text for event in core.run.telemetry.events.latest(100) if event.kind == "supervisor"] == [
        "no room"
    ]


def test_more_workers_than_fit_are_refused_with_the_number_that_does(core: WatchedCore) -> None:
    note = SupervisionNote(most_workers=2, most_workers_reason="this machine has 2 GPUs")
    core.admin.note_supervision(note)
    with pytest.raises(ValueError, match="at most 2 fit: this machine has 2 GPUs"):
        core.admin.scale(3)
    with pytest.raises(ValueError, match="at most 2 fit"):
        core.admin.scale_between(1, 3)
    core.admin.scale(2)
    assert core.run.scale.workers == 2
