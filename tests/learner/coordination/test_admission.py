"""Sessions at the core: joining, silence, coming back, leaving."""

from pathlib import Path

import pytest

from learner.state.sessions import SessionStatus
from protos.rpc.session_host import JoinDeniedError
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import Goodbye, HeldLane, JoinRequest
from tests.learner.builders import Peer, WatchedCore, make_core
from tests.support.clock import Clock


@pytest.fixture
def core(tmp_path: Path, clock: Clock) -> WatchedCore:
    return make_core(tmp_path, clock)


def held_by(peer: Peer, seq: int = 0) -> list[HeldLane]:
    lanes = peer.core.run.lanes
    return [HeldLane(lane=lane, fencing_token=lanes[lane].fencing_token, seq=seq) for lane in peer.lanes()]


def events(core: WatchedCore) -> list[str]:
    return [event.kind for event in core.run.telemetry.events.latest(100)]


def test_a_worker_that_attaches_is_told_theta_and_leases_every_lane(core: WatchedCore) -> None:
    peer = Peer(core)
    assert peer.received("theta")[0].sha256 == core.run.thetas.newest.sha256
    assert [grant.lane for grant in peer.received("grant")] == [0, 1, 2]


def test_a_worker_without_a_stream_leases_nothing(core: WatchedCore) -> None:
    assert Peer(core, attach=False).lanes() == []


def test_a_join_with_another_protocol_is_refused_with_both_versions_named(core: WatchedCore) -> None:
    request = JoinRequest(protocol_min=2, protocol_max=3, worker_name="w", process_uuid="i")
    with pytest.raises(JoinDeniedError, match="protocol 1, the worker 2 to 3"):
        core.join(request)


def test_a_join_to_another_run_is_refused(core: WatchedCore) -> None:
    request = JoinRequest(
        protocol_min=1, protocol_max=1, worker_name="w", process_uuid="i", run_id="other-run"
    )
    with pytest.raises(JoinDeniedError, match="'test-run', the worker asked for 'other-run'"):
        core.join(request)


@pytest.mark.parametrize("name", ["", "a b", "<script>", "x" * 65, "-w"])
def test_a_worker_name_that_cannot_be_shown_is_refused(core: WatchedCore, name: str) -> None:
    with pytest.raises(JoinDeniedError, match="1 to 64 letters"):
        Peer(core, name=name)


def test_workers_beyond_the_maximum_are_refused(tmp_path: Path) -> None:
    core = make_core(tmp_path, max_count=1)
    Peer(core, "w0")
    with pytest.raises(JoinDeniedError, match="all 1 places"):
        Peer(core, "w1")


def test_a_full_learner_still_admits_the_next_process_of_a_worker(tmp_path: Path) -> None:
    core = make_core(tmp_path, max_count=1)
    Peer(core, "w0", "i0")
    assert Peer(core, "w0", "i1").lanes() == [0, 1, 2]


def test_a_broken_stream_keeps_its_lanes(core: WatchedCore, clock: Clock) -> None:
    peer = Peer(core)
    peer.break_stream()
    clock.advance(29.0)
    core.tick()
    assert peer.lanes() == [0, 1, 2]
    assert peer.session.state(clock(), 5.0) is SessionStatus.SUSPECT


def test_a_worker_that_comes_back_in_time_keeps_the_leases_it_still_holds(core: WatchedCore) -> None:
    peer = Peer(core)
    held = held_by(peer)[:2]
    fencing_tokens = [lane.fencing_token for lane in core.run.lanes]
    peer.break_stream()
    session_id = peer.session_id
    peer.join(held)
    assert (peer.session_id, peer.lanes()) == (session_id, [0, 1])
    assert [lane.fencing_token for lane in core.run.lanes] == fencing_tokens


def test_a_lane_whose_grant_was_never_read_is_leased_again(core: WatchedCore) -> None:
    peer = Peer(core)
    before = core.run.lanes[2].fencing_token
    held = held_by(peer)[:2]
    peer.break_stream()
    peer.join(held)
    peer.attach()
    assert peer.lanes() == [0, 1, 2]
    assert core.run.lanes[2].fencing_token == before + 1


def test_silence_beyond_the_lease_frees_the_lanes(core: WatchedCore, clock: Clock) -> None:
    peer = Peer(core)
    clock.advance(30.1)
    core.tick()
    assert core.run.lanes.free() == list(core.run.lanes)
    assert peer.received("goodbye")[0].reason == Goodbye.EXPIRED
    assert "worker_expired" in events(core)


def test_a_heartbeat_keeps_a_worker_alive_and_is_answered_with_credits(
    core: WatchedCore, clock: Clock
) -> None:
    peer = Peer(core)
    for _ in range(4):
        clock.advance(20.0)
        peer.beat()
        core.tick()
    assert peer.lanes() == [0, 1, 2]
    assert [ack.credits for ack in peer.received("heartbeat_ack")] == [3, 3, 3, 3]


def test_two_missed_heartbeats_make_a_worker_suspect_and_one_more_beat_clears_it(
    core: WatchedCore, clock: Clock
) -> None:
    peer = Peer(core)
    clock.advance(10.1)
    core.tick()
    peer.beat()
    core.tick()
    assert events(core)[-2:] == ["worker_suspect", "worker_back"]


def test_the_lanes_of_an_expired_worker_go_to_the_others(core: WatchedCore, clock: Clock) -> None:
    Peer(core, "w0")
    other = Peer(core, "w1")
    clock.advance(25.0)
    other.beat()
    clock.advance(6.0)
    core.tick()
    assert other.lanes() == [0, 1, 2]


def test_a_new_process_of_a_worker_expires_the_old_one_at_once(core: WatchedCore) -> None:
    old = Peer(core, "w0", "i0")
    new = Peer(core, "w0", "i1", attach=False)
    assert core.run.sessions.get(old.session_id) is None
    assert core.run.sessions.named("w0") is new.session


def test_a_superseded_process_is_told_so(core: WatchedCore) -> None:
    old = Peer(core, "w0", "i0")
    core.join(JoinRequest(protocol_min=1, protocol_max=1, worker_name="w0", process_uuid="i1"))
    assert old.received("goodbye")[0].reason == Goodbye.SUPERSEDED


def test_what_an_expired_session_says_is_ignored(core: WatchedCore, clock: Clock) -> None:
    peer = Peer(core)
    clock.advance(31.0)
    core.tick()
    peer.beat()
    peer.push(0, 1)
    assert core.attach(peer.secret) is None
    assert len(core.run.buffer) == 0


def test_a_worker_that_leaves_gives_its_lanes_up(core: WatchedCore) -> None:
    peer = Peer(core)
    core.leave(peer.session_id, "drained")
    assert peer.received("goodbye")[0].reason == Goodbye.DRAINED
    assert len(core.run.sessions) == 0
    assert len(core.run.lanes.free()) == 3


def test_the_end_of_an_earlier_stream_does_not_break_the_current_one(core: WatchedCore) -> None:
    peer = Peer(core)
    first = peer.stream
    peer.attach()
    assert first is not None
    core.detach(peer.session_id, first)
    assert peer.session.stream == peer.stream


def test_work_that_does_not_move_loses_its_lanes_although_its_heart_beats(
    core: WatchedCore, clock: Clock
) -> None:
    peer = Peer(core)
    peer.beat(phase=learner_pb2.Heartbeat.COMPILING, phase_age_s=901.0, progress=3)
    core.tick()
    assert peer.lanes() == []
    assert peer.session.state(clock(), 5.0) is SessionStatus.STUCK
    assert "worker_stuck" in events(core)


def test_work_that_moves_again_gets_lanes_again(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.beat(phase=learner_pb2.Heartbeat.COMPILING, phase_age_s=901.0, progress=3)
    core.tick()
    peer.beat(phase=learner_pb2.Heartbeat.COMPUTING, progress=4)
    core.tick()
    assert peer.lanes() == [0, 1, 2]


def test_workers_on_different_devices_are_reported_in_sync_mode(core: WatchedCore) -> None:
    Peer(core)
    core.join(
        JoinRequest(
            protocol_min=1, protocol_max=1, worker_name="w1", process_uuid="i", device_kind="NVIDIA H100"
        )
    )
    assert "mixed_devices" in events(core)


def test_log_lines_of_a_session_are_bounded(core: WatchedCore) -> None:
    peer = Peer(core)
    for number in range(1100):
        core.log(peer.session_id, learner_pb2.LogLine(level="warning", text=f"line {number}"))
    assert "line 999" in core.run.telemetry.events.latest(1)[0].text
