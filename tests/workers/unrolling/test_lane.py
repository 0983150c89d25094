import hashlib

import jax
import numpy as np
import pytest

from protos.unspool.v1 import learner_pb2
from tests.workers.fake_learner import EXPERIMENT
from unspool.experiment import Experiment
from unspool.lanes import lane_state_shape, root_key, theta_key
from workers.unrolling import lane as lane_module
from workers.unrolling.lane import SnapshotError
from workers.unrolling.thetas import weights_of

EXPERIMENT_ = Experiment.from_toml(EXPERIMENT)
ESTIMATOR = EXPERIMENT_.estimator(0)


@pytest.fixture(scope="module")
def weights():
    return weights_of(EXPERIMENT_.init.init(theta_key(EXPERIMENT_.seed)), 0)


@pytest.fixture(scope="module")
def shape(weights):
    return lane_state_shape(ESTIMATOR, weights)


@pytest.fixture(scope="module")
def fresh(weights):
    grant = learner_pb2.LaneGrant(lane=1, fencing_token=4)
    return lane_module.initialise(grant, ESTIMATOR, weights, root_key(EXPERIMENT_.seed))


def grant_of(data: bytes, **fields: object) -> learner_pb2.LaneGrant:
    sha256 = hashlib.sha256(data).hexdigest()
    return learner_pb2.LaneGrant(lane=1, fencing_token=5, snapshot_sha256=sha256, **fields)


def test_a_snapshot_restores_the_state_to_the_bit(fresh, shape):
    data = fresh.to_bytes()
    restored = lane_module.restore(grant_of(data, seq=2, snapshot_seq=2), ESTIMATOR, shape, data)
    assert (restored.seq, restored.fencing_token) == (2, 5)
    jax.tree.map(np.testing.assert_array_equal, restored.unroll_state, fresh.unroll_state)


def test_a_replay_begins_at_the_snapshots_seq(fresh, shape):
    data = fresh.to_bytes()
    grant = grant_of(data, seq=4, snapshot_seq=2, replay_outer_steps=[2, 3])
    restored = lane_module.restore(grant, ESTIMATOR, shape, data)
    assert (restored.seq, restored.granted_seq, restored.replay) == (2, 4, (2, 3))


def test_without_a_replay_the_state_is_taken_as_it_is(fresh, shape):
    data = fresh.to_bytes()
    restored = lane_module.restore(grant_of(data, seq=9, snapshot_seq=2), ESTIMATOR, shape, data)
    assert (restored.seq, restored.granted_seq) == (9, 9)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data + b"x"])
def test_a_snapshot_that_is_no_state_of_this_estimator_is_refused(fresh, shape, damage):
    data = damage(fresh.to_bytes())
    with pytest.raises(SnapshotError, match="snapshot of lane 1 at seq 2"):
        lane_module.restore(grant_of(data, seq=2, snapshot_seq=2), ESTIMATOR, shape, data)


def test_a_snapshot_with_another_digest_is_refused(fresh, shape):
    data = fresh.to_bytes()
    with pytest.raises(SnapshotError, match="sha256"):
        lane_module.restore(grant_of(b"other", seq=2, snapshot_seq=2), ESTIMATOR, shape, data)


def test_no_snapshot_exceeds_its_bound(fresh, shape):
    assert len(fresh.to_bytes()) <= lane_module.max_snapshot_bytes(shape)
