"""Silent and stuck workers."""

from pathlib import Path

import pytest

from protos.unspool.v1.learner_pb2 import Heartbeat
from tests.learner.builders import Peer, WatchedCore, make_core
from tests.support.clock import Clock


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


def events(core: WatchedCore) -> list[str]:
    return [event.kind for event in core.events.latest(1000)]


@pytest.mark.parametrize(("phase_age_s", "is_stuck"), [(399.0, False), (401.0, True)])
def test_an_estimate_is_judged_by_the_times_of_its_own_lane(
    core: WatchedCore, phase_age_s: float, is_stuck: bool
) -> None:
    peer = Peer(core)
    peer.push(0, 1, compute_s=1.0)
    peer.push(1, 1, compute_s=40.0)
    peer.beat(phase=Heartbeat.COMPUTING, phase_age_s=phase_age_s, lane=1)
    core.tick()
    assert (peer.lanes() == []) is is_stuck


def test_a_lane_of_quick_estimates_has_a_limit_of_a_minute(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.push(0, 1, compute_s=0.1)
    peer.beat(phase=Heartbeat.COMPUTING, phase_age_s=59.0, lane=0)
    core.tick()
    assert peer.lanes() == [0, 1, 2]
    peer.beat(phase=Heartbeat.COMPUTING, phase_age_s=61.0, lane=0)
    core.tick()
    assert peer.lanes() == []


@pytest.mark.parametrize("phase", [Heartbeat.COMPUTING, Heartbeat.COMPILING, Heartbeat.RESTORING])
def test_a_phase_without_compute_times_has_a_limit_of_a_quarter_of_an_hour(
    core: WatchedCore, phase: Heartbeat.Phase
) -> None:
    peer = Peer(core)
    peer.beat(phase=phase, phase_age_s=899.0, lane=2)
    core.tick()
    assert peer.lanes() == [0, 1, 2]
    peer.beat(phase=phase, phase_age_s=901.0, lane=2)
    core.tick()
    assert peer.lanes() == []


def test_a_stuck_worker_that_starts_another_phase_is_active_again(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.beat(phase=Heartbeat.RESTORING, phase_age_s=901.0)
    core.tick()
    peer.beat(phase=Heartbeat.IDLE, phase_age_s=1.0)
    core.tick()
    assert peer.lanes() == [0, 1, 2]
    assert events(core)[-1] == "worker_back"


def test_a_worker_that_waits_is_never_stuck(core: WatchedCore) -> None:
    peer = Peer(core)
    peer.beat(phase=Heartbeat.IDLE, phase_age_s=1e6)
    core.tick()
    assert peer.lanes() == [0, 1, 2]


def test_a_silent_worker_is_suspected_and_later_expires_without_a_stack_request(tmp_path: Path) -> None:
    clock = Clock()
    core = make_core(tmp_path, clock)
    peer = Peer(core)
    clock.advance(11.0)
    core.tick()
    assert events(core)[-1] == "worker_suspect"
    clock.advance(20.0)
    core.tick()
    assert events(core)[-1] == "worker_expired"
    assert len(peer.received("stack_request")) == 0
