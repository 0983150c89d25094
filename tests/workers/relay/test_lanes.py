import pytest

from protos.unspool.v1.learner_pb2 import HeldLane, JoinRequest, LaneGrant
from workers.relay.lanes import RelayedLane, RelayedLanes
from workers.relay.sessions import RelayedWorker


def worker(name: str, *held: HeldLane) -> RelayedWorker:
    worker = RelayedWorker(name, JoinRequest(worker_name=name), "secret", 0.0)
    worker.note_held(held)
    return worker


def lane_of(number: int, session_id: str | None = None, **grant: int) -> RelayedLane:
    return RelayedLane(LaneGrant(lane=number, fencing_token=7, **grant), 0.0, session_id)


@pytest.fixture
def lanes() -> RelayedLanes:
    lanes = RelayedLanes()
    for number, session_id in enumerate(("w0", "w0", "w0", "w1", None)):
        lanes.put(lane_of(number, session_id))
    return lanes


def test_a_lane_is_found_under_its_current_lease_only(lanes):
    assert lanes.under(0, 7) is not None
    assert lanes.under(0, 6) is None
    assert lanes.under(9, 7) is None


def test_a_lane_is_leased_to_the_worker_that_holds_it_only(lanes):
    assert lanes.leased("w0", 0, 7) is not None
    assert lanes.leased("w1", 0, 7) is None


def test_lanes_are_listed_by_worker_and_those_without_one_apart(lanes):
    assert [lane.grant.lane for lane in lanes.of("w0")] == [0, 1, 2]
    assert [lane.grant.lane for lane in lanes.of(None)] == [4]


def test_dropping_an_earlier_lease_keeps_the_newer_one(lanes):
    earlier = lanes.under(0, 7)
    newer = RelayedLane(LaneGrant(lane=0, fencing_token=8), 0.0)
    lanes.put(newer)
    lanes.drop(earlier)
    assert lanes.under(0, 8) is newer


def test_a_relay_shares_its_lanes_among_its_workers(lanes):
    relay = worker("w0")
    relay.heartbeat.workers = 3
    assert lanes.load(relay) == 1.0
    assert lanes.load(worker("w0")) == 3.0


def test_a_lane_that_is_being_revoked_is_no_load(lanes):
    lanes.under(0, 7).is_revoking = True
    assert lanes.load(worker("w0")) == 2.0


def test_a_lane_goes_to_the_least_loaded_worker(lanes):
    assert lanes.best(lane_of(5), [worker("w0"), worker("w1")]).name == "w1"


@pytest.mark.parametrize(
    ("held", "grant", "best"),
    [
        (HeldLane(lane=5, seq=3), {"seq": 3}, "holder"),
        (HeldLane(lane=5, seq=2), {"seq": 3}, "w0"),
        (HeldLane(lane=5, seq=3), {"seq": 3, "discard_held": True}, "w0"),
    ],
)
def test_among_equal_loads_the_holder_of_the_wanted_state_is_best(held, grant, best):
    workers = [worker("w0"), worker("holder", held)]
    assert RelayedLanes().best(lane_of(5, **grant), workers).name == best


def test_a_state_is_not_worth_a_whole_lane_of_load(lanes):
    workers = [worker("w0", HeldLane(lane=5, seq=3)), worker("w1")]
    assert lanes.best(lane_of(5, seq=3), workers).name == "w1"


def test_the_most_loaded_worker_gives_up_its_furthest_lane_once_none_waits(lanes):
    workers = [worker("w0"), worker("w1")]
    assert lanes.surplus(workers) is None  # lane 4 waits for a worker
    lanes.drop(lanes.under(4, 7))
    lanes.under(1, 7).seq = 9
    surplus = lanes.surplus(workers)
    assert surplus is lanes.under(1, 7)
    surplus.is_revoking = True
    assert lanes.surplus(workers) is None  # one at a time


def test_loads_that_differ_by_one_lane_are_even(lanes):
    lanes.drop(lanes.under(4, 7))
    lanes.drop(lanes.under(0, 7))
    assert lanes.surplus([worker("w0"), worker("w1")]) is None


def test_a_held_lane_reports_the_newest_seq():
    lane = lane_of(1, seq=4)
    assert lane.held().seq == 4
    lane.seq = 6
    assert lane.held() == HeldLane(lane=1, fencing_token=7, seq=6)
