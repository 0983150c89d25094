"""A lane on a worker: how its unroll state is initialised or restored, advanced and snapshotted."""

import dataclasses
import hashlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from protos import codec
from protos.unspool.v1 import learner_pb2
from unspool import lanes, serialization
from unspool.outer_trainers.gradient_learner import GradientEstimator, WorkerWeights
from unspool.types import PRNGKey, PyTree

_HEADER_BYTES = 2**20
"""Upper bound on the size of a snapshot's names and metadata, in addition to its arrays."""


class SnapshotError(ValueError):
    """A snapshot differs from the one that the learner granted."""


@dataclasses.dataclass(frozen=True)
class LaneUnroll:
    """One lane, either leased or kept in case it is leased again.

    Attributes:
        number: of the lane within the run.
        fencing_token: the lease's fencing number, sent with every message about the lane.
        seq: number of estimates that led to `unroll_state`.
        estimator: computes the lane's estimates.
        unroll_state: the state that estimate `seq + 1` starts from.
        replay: outer steps of the estimates to recompute, and discard, before new ones.
        snapshot_seq: the newest seq whose snapshot was sent to the learner; -1: unknown.
        leased: whether this worker may push for it.
    """

    number: int
    fencing_token: int
    seq: int
    estimator: GradientEstimator
    unroll_state: PyTree = dataclasses.field(repr=False)
    replay: tuple[int, ...] = ()
    snapshot_seq: int = -1
    leased: bool = True

    @property
    def granted_seq(self) -> int:
        """The seq of the state after all replays."""
        return self.seq + len(self.replay)

    def advance(self, unroll_state: PyTree) -> "LaneUnroll":
        """Return the lane after one more estimate."""
        return dataclasses.replace(self, seq=self.seq + 1, unroll_state=unroll_state, replay=self.replay[1:])

    def lease_again(self, grant: learner_pb2.LaneGrant) -> "LaneUnroll":
        """Return the lane with the same state under a new lease."""
        return dataclasses.replace(
            self, fencing_token=grant.fencing_token, leased=True, snapshot_seq=grant.snapshot_seq
        )

    def snapshotted(self) -> "LaneUnroll":
        """Return the lane after its snapshot was sent."""
        return dataclasses.replace(self, snapshot_seq=self.seq)

    def lost(self) -> "LaneUnroll":
        """Return the lane without its lease, to be kept in case it is leased again."""
        return dataclasses.replace(self, leased=False, snapshot_seq=-1)

    def held(self) -> learner_pb2.HeldLane:
        """Return the lane's entry in heartbeats and Joins."""
        return learner_pb2.HeldLane(lane=self.number, fencing_token=self.fencing_token, seq=self.seq)

    def to_bytes(self) -> bytes:
        """Return the snapshot of the unroll state."""
        metadata = {"lane": str(self.number), "seq": str(self.seq)}
        return serialization.to_bytes(jax.device_get(self.unroll_state), metadata)


def initialise(
    grant: learner_pb2.LaneGrant,
    estimator: GradientEstimator,
    weights: WorkerWeights,
    root: PRNGKey,
    mesh: Mesh | None = None,
) -> LaneUnroll:
    """Return a granted lane without a snapshot, in its initial state under `weights`."""
    unroll_state = lanes.init_lane(estimator, weights, root, grant.lane, mesh)
    # Without a replay the initial state stands for the granted seq: the estimates up to it are skipped.
    seq = 0 if grant.replay_outer_steps else grant.seq
    return _granted(grant, estimator, unroll_state, seq)


def restore(
    grant: learner_pb2.LaneGrant,
    estimator: GradientEstimator,
    shape: PyTree,
    data: codec.Buffer,
    mesh: Mesh | None = None,
) -> LaneUnroll:
    """Return a granted lane from the bytes of its snapshot.

    Args:
        grant: names the snapshot and its digest.
        estimator: of this lane.
        shape: from `unspool.lanes.lane_state_shape`.
        data: as fetched from the learner; independent of any mesh.
        mesh: the devices that compute the lane; None for one device.

    Raises:
        SnapshotError: `data` has a different digest, or a state that does not match this estimator's.
    """
    digest = hashlib.sha256(data).hexdigest()
    where = f"snapshot of lane {grant.lane} at seq {grant.snapshot_seq}"
    if digest != grant.snapshot_sha256:
        raise SnapshotError(f"{where}: sha256 {digest}, granted as {grant.snapshot_sha256}")
    try:
        unroll_state = serialization.from_bytes(bytes(data), shape)
    except serialization.SerializationError as error:
        raise SnapshotError(f"{where}: {error}") from error
    seq = grant.snapshot_seq if grant.replay_outer_steps else grant.seq
    return _granted(grant, estimator, lanes.place_state(estimator, unroll_state, mesh), seq)


def max_snapshot_bytes(shape: PyTree) -> int:
    """Return an upper bound on the size of a snapshot of a state of `shape`."""
    return _HEADER_BYTES + sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(shape))


def _granted(
    grant: learner_pb2.LaneGrant, estimator: GradientEstimator, unroll_state: Any, seq: int
) -> LaneUnroll:
    return LaneUnroll(
        number=grant.lane,
        fencing_token=grant.fencing_token,
        seq=seq,
        estimator=estimator,
        unroll_state=unroll_state,
        replay=tuple(grant.replay_outer_steps),
        snapshot_seq=grant.snapshot_seq,
    )


def _leaf_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        # A typed key occupies as many words as its implementation needs.
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    size: int = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
    return size
