"""A worker's computation: creates lanes from grants, and estimates from a lane and a theta."""

import os
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from protos import codec
from protos.exit_codes import RefusedError
from protos.unspool.v1 import common_pb2, learner_pb2
from unspool import lanes
from unspool.config.numerics import Numerics
from unspool.device_mesh import task_mesh
from unspool.experiment import Experiment
from unspool.outer_trainers.gradient_learner import GradientEstimator, WorkerWeights
from workers.session.client import LearnerClient
from workers.unrolling import lane as lane_module
from workers.unrolling.allowed_code import COMPONENT_PACKAGES, check_components
from workers.unrolling.fitness import check_devices, compute_as
from workers.unrolling.lane import LaneUnroll
from workers.unrolling.thetas import Thetas, weights_of


class Unroller:
    """One experiment on this process's devices. It stores no lanes: they are passed in and returned."""

    def __init__(
        self,
        reply: learner_pb2.JoinReply,
        client: LearnerClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build the experiment from the learner's configuration.

        Args:
            reply: the learner's answer to Join.
            client: where snapshots and thetas are fetched from.
            clock: monotonic seconds.

        Raises:
            RefusedError: the experiment cannot be built here, its theta differs in shape from the
                learner's, or this process would not compute the same bits as the run's other workers.
        """
        self._client = client
        self._clock = clock
        tables = tomllib.loads(reply.experiment_toml)
        numerics, wanted = Numerics.from_tables(tables), tables.get("workers", {})
        compute_as(numerics, os.environ)
        if reply.exact_steps:
            check_devices(wanted, os.environ, jax.local_devices())
        self._experiment = _experiment(reply.experiment_toml, numerics)
        self._mesh = _mesh_of(wanted, jax.local_devices())
        self._root = lanes.root_key(self._experiment.seed)
        theta_shape = self._experiment.theta_shape()
        self._schema = codec.schema_of(theta_shape)
        _check_schema(self._schema, reply.schema)
        self._weights_shape = jax.eval_shape(lambda theta: weights_of(theta, outer_step=0), theta_shape)
        self._compiled: set[GradientEstimator] = set()
        self.thetas = Thetas(client, self._schema, theta_shape, self._mesh)

    def compiles(self, lane: LaneUnroll) -> bool:
        """Whether the next estimate of `lane` compiles first."""
        return lane.estimator.is_compiled and lane.estimator not in self._compiled

    def initialise(self, grant: learner_pb2.LaneGrant, weights: WorkerWeights) -> LaneUnroll:
        """Return a granted lane that has no snapshot."""
        estimator = self._experiment.estimator(grant.lane)
        return lane_module.initialise(grant, estimator, weights, self._root, self._mesh)

    def restore(self, grant: learner_pb2.LaneGrant) -> LaneUnroll:
        """Return a granted lane from its snapshot.

        Raises:
            RefusedError: the learner has no such snapshot.
            UnavailableError: the learner could not be reached.
            SnapshotError: the bytes differ from the granted snapshot.
        """
        estimator = self._experiment.estimator(grant.lane)
        shape = lanes.lane_state_shape(estimator, self._weights_shape)
        limit = lane_module.max_snapshot_bytes(shape)
        data = self._client.get_snapshot(grant.lane, grant.snapshot_seq, limit)
        return lane_module.restore(grant, estimator, shape, data, self._mesh)

    def replay(self, lane: LaneUnroll) -> LaneUnroll:
        """Recompute the next estimate of the lane's replay, and keep only the unroll state after it.

        Raises:
            RefusedError: the learner no longer has the theta of that estimate.
            UnavailableError: the learner could not be reached.
        """
        estimate = self._estimate(lane, self.thetas.published(lane.replay[0]))
        # Block so that the worker reads its next command after at most one estimate.
        jax.block_until_ready(estimate.unroll_state)  # type: ignore[no-untyped-call]  # JAX has no types for it
        return lane.advance(estimate.unroll_state)

    def estimate(
        self, lane: LaneUnroll, weights: WorkerWeights, outer_step: int
    ) -> tuple[LaneUnroll, learner_pb2.GradientEstimatorOut, bytes]:
        """Compute the next estimate of `lane`; return the lane after it, the push, and the push's body."""
        began_s = self._clock()
        estimate = self._estimate(lane, weights)
        # One transfer, and the only time the host waits for the device: the unroll state stays on the device.
        grad, mean_loss, weight, info = jax.device_get(
            (estimate.grad, estimate.mean_loss, estimate.weight, estimate.info)
        )
        compute_s = self._clock() - began_s
        push = learner_pb2.GradientEstimatorOut(
            lane=lane.number,
            fencing_token=lane.fencing_token,
            seq=lane.seq + 1,
            outer_step=outer_step,
            weight=float(weight),
            mean_loss=float(mean_loss),
            unroll_info=learner_pb2.UnrollInfo(
                inner_step_mean=float(info.inner_step_mean),
                inner_steps=int(info.inner_steps),
                diverged_tasks=int(info.diverged_tasks),
            ),
            compute_s=compute_s,
        )
        return lane.advance(estimate.unroll_state), push, codec.encode(grad, self._schema)

    def _estimate(self, lane: LaneUnroll, weights: WorkerWeights) -> lanes.LaneEstimate:
        estimate = lanes.estimate_lane(
            lane.estimator, weights, lane.unroll_state, self._root, lane.number, lane.seq + 1, self._mesh
        )
        if lane.estimator.is_compiled:  # others need not be hashable
            self._compiled.add(lane.estimator)
        return estimate


def _experiment(toml: str, numerics: Numerics) -> Experiment:
    check_components(tomllib.loads(toml), os.environ.get(COMPONENT_PACKAGES, ""))
    try:
        experiment = Experiment.from_toml(toml)
        numerics.check_applied()
        return experiment
    except ValueError as error:
        raise RefusedError(f"this worker cannot build the learner's experiment: {error}") from error


def _mesh_of(
    wanted: Mapping[str, Any],
    own: Sequence[jax.Device],  # pyright: ignore[reportInvalidTypeForm] (JAX declares a variable)
) -> Mesh | None:
    """Return the mesh of the run's `workers.devices` devices, on which theta's bits depend; None for one."""
    devices = int(wanted.get("devices", 1))
    if len(own) < devices:
        on_cpu = wanted.get("platform", "cpu") == "cpu"
        remedy = f"start it with --cpu-devices {devices}" if on_cpu else "give it as many"
        raise RefusedError(
            f"this worker has {len(own)} {own[0].platform} device(s) but the run's workers.devices is "
            f"{devices}: {remedy}"
        )
    return task_mesh(own[:devices]) if devices > 1 else None


def _check_schema(own: common_pb2.Schema, learners: common_pb2.Schema) -> None:
    if own.sha256 == learners.sha256:
        return
    pairs = zip(own.leaves, learners.leaves, strict=False)
    leaf = next((f"{mine} here, {theirs} there" for mine, theirs in pairs if mine != theirs), "their number")
    raise RefusedError(
        f"theta in this worker differs from the learner's: {leaf}; run the same code on both sides"
    )
