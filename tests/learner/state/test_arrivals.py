"""How long a quorum waits for the other lanes when nobody has said how long."""

from pathlib import Path

import pytest

from learner.coordination.status import waiting_for
from learner.state.arrivals import ArrivalTimes
from tests.learner.builders import Peer, WatchedCore, make_core, update
from tests.support.clock import Clock


def observed(*offsets_s: float, longest_s: float = 100.0) -> ArrivalTimes:
    """Arrivals of a step that began at 0, and a step 2 that began at 1000."""
    arrivals = ArrivalTimes(lanes=4, longest_s=longest_s)
    arrivals.began(1, 0.0)
    for offset_s in offsets_s:
        arrivals.arrived(1, offset_s)
    arrivals.began(2, 1000.0)
    return arrivals


def test_nothing_is_waited_for_before_anything_was_observed() -> None:
    assert observed().grace_s(2, complete_s=1001.0) == 0.0


def test_it_lasts_until_gradients_have_usually_arrived() -> None:
    # Median 3, median absolute deviation 1: until 6 s after the step began.
    assert observed(1.0, 2.0, 3.0, 4.0, 5.0).grace_s(2, complete_s=1002.0) == pytest.approx(4.0)


def test_a_quorum_later_than_that_waits_no_longer() -> None:
    assert observed(1.0, 2.0, 3.0, 4.0, 5.0).grace_s(2, complete_s=1007.0) == 0.0


def test_it_never_lasts_longer_than_its_bound() -> None:
    assert observed(50.0, 500.0, 500.0, longest_s=30.0).grace_s(2, complete_s=1000.0) == 30.0


def test_a_few_lanes_that_are_much_slower_are_not_waited_for() -> None:
    assert observed(1.0, 1.1, 1.2, 1.1, 60.0).grace_s(2, complete_s=1001.0) == pytest.approx(0.1 + 0.3)


def test_it_grows_where_gradients_arrive_after_their_step() -> None:
    arrivals = observed(1.0, 1.0)
    before_s = arrivals.grace_s(2, complete_s=1001.0)
    for _ in range(3):
        arrivals.arrived(1, 1009.0)
    assert arrivals.grace_s(2, complete_s=1001.0) > before_s


def test_gradients_of_the_first_theta_say_nothing() -> None:
    arrivals = observed()
    arrivals.arrived(0, 500.0)
    assert arrivals.grace_s(2, complete_s=1000.0) == 0.0


def test_what_is_here_early_of_the_running_step_says_nothing_of_the_rest() -> None:
    arrivals = observed(4.0)
    for _ in range(3):
        arrivals.arrived(2, 1001.0)
    assert arrivals.grace_s(2, complete_s=1001.0) == pytest.approx(3.0)


def test_only_the_latest_arrivals_count() -> None:
    arrivals = observed(*[50.0] * 10)
    for _ in range(8 * 4):
        arrivals.arrived(2, 1001.0)
    arrivals.began(3, 2000.0)
    assert arrivals.grace_s(3, complete_s=2000.5) == pytest.approx(0.5)


@pytest.fixture
def core(tmp_path: Path, clock: Clock) -> WatchedCore:
    """A quorum of 2 of 4 lanes which has seen one step, where lanes took 1, 2, 3 and 4 s."""
    core = make_core(tmp_path, clock, lanes=4, mode="quorum", quorum=0.5, grace_s=None, max_staleness=1)
    peer = Peer(core)
    for lane in range(4):
        peer.push(lane, 1)
    update(core)
    for lane in range(4):
        clock.advance(1.0)
        peer.push(lane, 2)
    update(core)
    return core


def test_a_run_waits_as_long_as_its_lanes_lately_took(core: WatchedCore, clock: Clock) -> None:
    peer = Peer(core, process_uuid="i0")
    for lane in (0, 1):
        clock.advance(1.0)
        peer.push(lane, 3)
    clock.advance(3.4)  # median 2.5 and deviation 1: until 5.5 s after the step began
    assert core.updates.batch_due_in_s() != 0.0
    clock.advance(0.2)
    assert core.updates.batch_due_in_s() == 0.0


def test_status_says_for_whom_and_how_long(core: WatchedCore, clock: Clock) -> None:
    peer = Peer(core, process_uuid="i0")
    for lane in (0, 2):
        clock.advance(1.0)
        peer.push(lane, 3)
    assert waiting_for(core.run).startswith("2 of 4 lanes, for 3.5 s at most: lane 1 ")


def test_a_gradient_that_comes_too_late_to_be_used_still_counts_as_an_arrival(
    core: WatchedCore, clock: Clock
) -> None:
    peer = Peer(core, process_uuid="i0")
    before_s = core.run.arrivals.grace_s(2, clock())
    for seq in (3, 4):
        for lane in range(3):
            peer.push(lane, seq)
        clock.advance(30.0)
        update(core)
    for _ in range(20):
        peer.push(3, 5, outer_step=2)
    assert peer.verdicts()[-1] == "STALE"
    assert core.run.arrivals.grace_s(4, clock()) > before_s


def test_what_comes_late_is_carried_into_the_next_update(core: WatchedCore, clock: Clock) -> None:
    peer = Peer(core, process_uuid="i0")
    for lane in range(3):
        peer.push(lane, 3)
    clock.advance(30.0)
    update(core)
    peer.push(3, 3, outer_step=2)
    peer.push(0, 4)
    clock.advance(30.0)
    update(core)
    assert core.run.telemetry.counters.staleness == {0: 2 * 4 + 3 + 1, 1: 1}
