"""The thetas of a worker: fetched from the learner, checked, and put on the device once."""

import hashlib

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from protos import codec
from protos.unspool.v1 import common_pb2, learner_pb2
from unspool.device_mesh import on_each_device
from unspool.outer_trainers.gradient_learner import OuterState, WorkerWeights
from unspool.types import Theta
from workers.session.client import LearnerClient, UnavailableError


class Thetas:
    """Converts outer steps into `WorkerWeights`.

    The newest announced theta is cached; those of a replay are used only once.
    """

    def __init__(
        self,
        client: LearnerClient,
        schema: common_pb2.Schema,
        theta_shape: Theta,
        mesh: Mesh | None = None,
    ) -> None:
        """Decode bodies with the learner's `schema`, into trees like the worker's own `theta_shape`.

        With a `mesh`, thetas are put on each of its devices.
        """
        self._client = client
        self._schema = schema
        self._treedef = jax.tree.structure(theta_shape)
        self._mesh = mesh
        self._size = codec.body_bytes(schema)
        self._newest_sha256 = ""
        self._newest: WorkerWeights | None = None

    def announced(self, announcement: learner_pb2.ThetaAnnouncement) -> WorkerWeights:
        """Return the announced weights.

        Raises:
            UnavailableError: the body could not be fetched, or its digest is not the announced one.
        """
        # Compare digests, not outer steps: a restarted learner may reach the same outer step with a different
        # theta.
        if self._newest is None or announcement.sha256 != self._newest_sha256:
            body = (
                announcement.inline
                if announcement.HasField("inline")
                else self._fetch(announcement.outer_step)
            )
            if hashlib.sha256(body).hexdigest() != announcement.sha256:
                raise UnavailableError(
                    f"theta {announcement.outer_step}: the digest is not the announced one"
                )
            self._newest = self._weights(body, announcement.outer_step)
            self._newest_sha256 = announcement.sha256
        return self._newest

    def published(self, outer_step: int) -> WorkerWeights:
        """Return the weights of any outer step that the learner still has.

        Raises:
            RefusedError: the learner no longer has that outer step's theta.
            UnavailableError: the learner could not be reached.
        """
        return self._weights(self._fetch(outer_step), outer_step)

    def _fetch(self, outer_step: int) -> codec.Buffer:
        return self._client.get_theta(outer_step, self._size)

    def _weights(self, body: codec.Buffer, outer_step: int) -> WorkerWeights:
        theta = codec.decode_tree(body, self._schema, self._treedef)
        return on_each_device(weights_of(theta, outer_step), self._mesh)


def weights_of(theta: Theta, outer_step: int) -> WorkerWeights:
    """Return the `WorkerWeights` that an estimator receives for a theta and its outer step."""
    return WorkerWeights(theta, None, OuterState(outer_iteration=jnp.asarray(outer_step, jnp.int32)))
