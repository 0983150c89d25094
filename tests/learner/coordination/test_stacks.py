"""Stack dumps of workers, for admins and for the event log."""

from pathlib import Path

import pytest

from protos.unspool.v1.learner_pb2 import Heartbeat, StackDump
from tests.learner.builders import Peer, WatchedCore, make_core


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


def events(core: WatchedCore) -> list[str]:
    return [event.kind for event in core.events.latest(1000)]


def requests(peer: Peer) -> int:
    return len(peer.received("stack_request"))


def test_a_dump_answers_the_request(core: WatchedCore) -> None:
    peer = Peer(core)
    asked = core.admin.ask_for_stack("w0")
    assert requests(peer) == 1
    core.stack(peer.session_id, StackDump(text="Thread 1"))
    assert asked.result(0) == "Thread 1"
    assert "worker_stack" not in events(core)


def test_two_requests_at_once_get_the_same_dump(core: WatchedCore) -> None:
    peer = Peer(core)
    asked = [core.admin.ask_for_stack("w0") for _ in range(2)]
    core.stack(peer.session_id, StackDump(text="Thread 1"))
    assert [future.result(0) for future in asked] == ["Thread 1"] * 2


def test_a_dump_that_arrives_after_a_timeout_answers_the_next_request_as_well(core: WatchedCore) -> None:
    peer = Peer(core)
    timed_out, asked = core.admin.ask_for_stack("w0"), core.admin.ask_for_stack("w0")
    core.stack(peer.session_id, StackDump(text="Thread 1"))
    core.stack(peer.session_id, StackDump(text="Thread 1, later"))
    assert timed_out.result(0) == asked.result(0) == "Thread 1"


def test_a_dump_without_a_request_is_dropped(core: WatchedCore) -> None:
    core.stack(Peer(core).session_id, StackDump(text="spam"))
    assert "worker_stack" not in events(core)


def test_a_long_dump_is_truncated(core: WatchedCore) -> None:
    peer = Peer(core)
    asked = core.admin.ask_for_stack("w0")
    core.stack(peer.session_id, StackDump(text="x" * (1 << 20)))
    assert len(asked.result(0)) == 1 << 16


def test_a_request_to_a_worker_without_a_stream_fails(core: WatchedCore) -> None:
    Peer(core).break_stream()
    with pytest.raises(ConnectionError, match="it has lost its connection"):
        core.admin.ask_for_stack("w0")


def test_the_dump_of_a_stuck_worker_becomes_an_event(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.beat(phase=Heartbeat.COMPILING, phase_age_s=901.0)
    for _ in range(3):
        core.tick()
    assert requests(peer) == 1
    core.stack(peer.session_id, StackDump(text="y" * 10_000))
    (event,) = [event for event in core.run.telemetry.events.latest(1000) if event.kind == "worker_stack"]
    assert event.text == "w0:\n" + "y" * 8000
