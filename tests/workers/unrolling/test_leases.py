import dataclasses

import pytest

from protos.unspool.v1 import learner_pb2
from tests.workers.fake_learner import EXPERIMENT
from unspool.experiment import Experiment
from workers.unrolling.lane import LaneUnroll
from workers.unrolling.leases import HeldLeases

ESTIMATOR = Experiment.from_toml(EXPERIMENT).estimator(0)


def lane(number: int, seq: int = 3, **changes: object) -> LaneUnroll:
    return dataclasses.replace(LaneUnroll(number, 1, seq, ESTIMATOR, unroll_state=()), **changes)


@pytest.fixture
def leases() -> HeldLeases:
    leases = HeldLeases()
    for number in (0, 2, 5):
        leases.put(lane(number))
    return leases


def numbers(leases: HeldLeases) -> list[int]:
    return [lane.number for lane in leases]


def test_lanes_take_turns(leases):
    leases.serve(lane(2))
    assert numbers(leases) == [5, 0, 2]
    leases.serve(lane(5))
    assert numbers(leases) == [0, 2, 5]


def test_a_lane_is_leased_under_its_own_incarnation_alone(leases):
    assert leases.leased(2, 1) is not None
    assert leases.leased(2, 2) is None
    assert leases.leased(3, 1) is None


def test_a_lost_lease_leaves_the_state_behind(leases):
    leases.keep(lambda lane: lane.number != 2)
    assert numbers(leases) == [0, 5]
    assert sorted(held.lane for held in leases.held()) == [0, 2, 5]
    leases.drop_unleased()
    assert sorted(held.lane for held in leases.held()) == [0, 5]


def test_a_state_that_is_half_replayed_goes_with_its_lease(leases):
    leases.put(lane(2, replay=(3, 4)))
    leases.keep(lambda lane: False)
    assert sorted(held.lane for held in leases.held()) == [0, 5]


@pytest.mark.parametrize(
    ("granted_seq", "exact", "reused"),
    [(3, True, True), (2, True, False), (4, True, False), (2, False, True), (4, False, False)],
)
def test_a_state_is_reused_where_it_is_what_the_grant_asks_for(leases, granted_seq, exact, reused):
    grant = learner_pb2.LaneGrant(lane=2, fencing_token=9, seq=granted_seq)
    found = leases.reuse(grant, exact=exact)
    assert (found is not None) == reused
    assert found is None or (found.fencing_token, found.seq) == (9, 3)


def test_a_state_that_is_to_be_discarded_is_not_reused(leases):
    grant = learner_pb2.LaneGrant(lane=2, fencing_token=9, seq=3, discard_held=True)
    assert leases.reuse(grant, exact=False) is None
