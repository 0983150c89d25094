"""How a run ends: finished, stopped, failed."""

from pathlib import Path

import pytest

from learner.coordination.status import build_status
from learner.state.run_state import RunState
from learner.storage.update_record import Effect
from protos.unspool.v1.learner_pb2 import Goodbye
from tests.learner.builders import Peer, WatchedCore, make_core, run_one_step, update


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


@pytest.fixture
def peer(core: WatchedCore) -> Peer:
    return Peer(core)


def test_a_run_continues_until_its_last_outer_step(tmp_path: Path) -> None:
    core = make_core(tmp_path, outer_steps=2)
    peer = Peer(core)
    run_one_step(core, peer)
    assert core.updates.ending() is None
    run_one_step(core, peer)
    assert core.updates.ending() is RunState.FINISHED


def test_a_stop_waits_for_the_running_outer_step(core: WatchedCore, peer: Peer) -> None:
    core.admin.stop(now=False, reason="test")
    assert (core.run.state, core.updates.ending()) == (RunState.STOPPING, None)
    run_one_step(core, peer)
    assert core.updates.ending() is RunState.STOPPED


def test_a_stop_now_does_not_wait(core: WatchedCore, peer: Peer) -> None:
    core.admin.stop(now=True, reason="test")
    assert core.updates.ending() is RunState.STOPPED


def test_a_second_stop_can_only_make_it_sooner(core: WatchedCore, peer: Peer) -> None:
    core.admin.stop(now=True, reason="test")
    core.admin.stop(now=False, reason="test")
    assert core.updates.ending() is RunState.STOPPED


def test_a_stop_does_not_wait_where_nobody_computes(core: WatchedCore) -> None:
    core.admin.stop(now=False, reason="test")
    assert core.updates.ending() is RunState.STOPPED


def test_a_stop_does_not_wait_for_workers_that_went_silent(core: WatchedCore, peer: Peer) -> None:
    core.admin.stop(now=False, reason="test")
    peer.break_stream()
    assert core.updates.ending() is RunState.STOPPED


def test_a_paused_run_stops_at_once(core: WatchedCore, peer: Peer) -> None:
    core.admin.pause()
    core.admin.stop(now=False, reason="test")
    assert core.updates.ending() is RunState.STOPPED


def test_a_run_never_ends_in_the_middle_of_an_update(core: WatchedCore, peer: Peer) -> None:
    for lane in range(3):
        peer.push(lane, 1)
    assert core.updates.take_batch() is not None
    core.admin.stop(now=True, reason="test")
    assert core.updates.ending() is None


@pytest.mark.parametrize(
    ("final", "reason"),
    [
        (RunState.FINISHED, Goodbye.FINISHED),
        (RunState.STOPPED, Goodbye.STOPPED),
        (RunState.FAILED, Goodbye.FAILED),
    ],
)
def test_everyone_is_told_how_it_ended(
    core: WatchedCore, peer: Peer, final: RunState, reason: Goodbye.Reason
) -> None:
    core.updates.end(final)
    assert peer.received("goodbye")[0].reason == reason


def test_a_worker_that_comes_after_the_end_is_told_as_well(core: WatchedCore) -> None:
    core.updates.end(RunState.FINISHED)
    peer = Peer(core)
    assert [message.WhichOneof("body") for message in peer.listen()] == ["goodbye"]


def test_a_worker_that_goes_after_the_end_is_not_missed(core: WatchedCore, peer: Peer) -> None:
    core.updates.end(RunState.FINISHED)
    peer.break_stream()
    assert len(core.run.sessions) == 0
    assert len(core.run.lanes.free()) == 3


def test_three_reverted_updates_in_a_row_fail_the_run(core: WatchedCore, peer: Peer) -> None:
    for _ in range(3):
        assert core.updates.ending() is None
        for lane in range(3):
            peer.push(lane, core.run.outer_step + 1)
        update(core, Effect.REVERTED)
    assert core.updates.ending() is RunState.FAILED


def test_a_good_update_between_reverted_ones_keeps_the_run_alive(core: WatchedCore, peer: Peer) -> None:
    for effect in (Effect.REVERTED, Effect.REVERTED, Effect.MOVED, Effect.REVERTED):
        for lane in range(3):
            peer.push(lane, core.run.outer_step + 1)
        update(core, effect)
    assert core.updates.ending() is None


def take_steps(core: WatchedCore, peer: Peer, *effects: Effect) -> None:
    for effect in effects:
        for lane in range(3):
            peer.push(lane, core.run.outer_step + 1)
        update(core, effect)


def test_empty_updates_between_reverted_ones_do_not_hide_them(core: WatchedCore, peer: Peer) -> None:
    take_steps(core, peer, Effect.REVERTED, Effect.EMPTY, Effect.REVERTED, Effect.EMPTY)
    assert core.updates.ending() is None
    take_steps(core, peer, Effect.REVERTED)
    assert core.updates.ending() is RunState.FAILED


def problems(core: WatchedCore) -> list[str]:
    return [problem for problem in build_status(core.run).problems if problem.startswith("theta: ")]


def test_a_run_in_which_no_update_had_weight_ends_untrained(tmp_path: Path) -> None:
    core = make_core(tmp_path, outer_steps=5)
    peer = Peer(core)
    take_steps(core, peer, Effect.EMPTY, Effect.EMPTY)
    assert problems(core) == []
    take_steps(core, peer, Effect.EMPTY)
    assert problems(core)[0].startswith("theta: has not moved at all (3 updates): no gradient had weight")
    take_steps(core, peer, Effect.EMPTY, Effect.EMPTY)
    assert core.updates.ending() is RunState.UNTRAINED
    core.updates.end(RunState.UNTRAINED)
    event = core.run.telemetry.events.latest(1)[0]
    assert (event.level, event.kind) == ("error", "untrained")
    assert "has not moved at all (5 updates)" in event.text


def test_one_update_of_weight_makes_an_end_a_success_and_a_standstill_is_told(tmp_path: Path) -> None:
    core = make_core(tmp_path, outer_steps=5)
    peer = Peer(core)
    take_steps(core, peer, Effect.EMPTY, Effect.MOVED, Effect.EMPTY, Effect.EMPTY, Effect.EMPTY)
    assert core.updates.ending() is RunState.FINISHED
    assert problems(core)[0].startswith("theta: has not moved since outer step 2 (3 updates)")


def test_a_standstill_is_over_when_theta_moves(core: WatchedCore, peer: Peer) -> None:
    take_steps(core, peer, *[Effect.EMPTY] * 4)
    assert problems(core)
    take_steps(core, peer, Effect.MOVED)
    assert problems(core) == []


def test_the_state_says_whether_anybody_is_there(core: WatchedCore) -> None:
    assert core.run.state is RunState.WAITING_FOR_WORKERS
    peer = Peer(core)
    assert core.run.state is RunState.RUNNING
    peer.break_stream()
    assert core.run.state is RunState.WAITING_FOR_WORKERS


def test_a_push_that_no_update_will_use_is_answered_when_the_run_ends(core: WatchedCore, peer: Peer) -> None:
    peer.push(0, 1)
    core.updates.end(RunState.STOPPED)
    assert peer.verdicts() == ["ACCEPTED", "CLOSED"]
    assert (core.run.telemetry.counters.verdicts, len(core.run.buffer)) == ({"ACCEPTED": 1, "CLOSED": 1}, 0)
