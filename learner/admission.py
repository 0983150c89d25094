"""Checks of Joins and of the bodies of pushes. They change nothing."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from learner.aggregation import Objection
from learner.sessions import WorkerSession
from learner.settings import LearnerSettings
from protos import codec
from protos.rpc.denials import DenialReason
from protos.rpc.push import checksum_of, leaves_of, verdict_on
from protos.rpc.session_service import JoinDeniedError, check_join
from protos.rpc.sessions import SessionTable
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Schema


def check_worker(
    request: learner_pb2.JoinRequest,
    settings: LearnerSettings,
    sessions: SessionTable[WorkerSession],
    excluded_hosts: Mapping[str, str],
) -> None:
    """Check that a worker may join this run now.

    Raises:
        JoinDeniedError: with the reason and the remedy.
    """
    check_join(request, settings.run_id, "learner")
    if request.host in excluded_hosts:
        raise JoinDeniedError(
            DenialReason.EXCLUDED_HOST,
            f"host {request.host!r} is excluded: {excluded_hosts[request.host]}; fix the host, then restart "
            "the learner: a restart clears exclusions",
        )
    if sessions.named(request.worker_name) is None and len(sessions) >= settings.workers.max_count:
        raise JoinDeniedError(
            DenialReason.NO_ROOM,
            f"all {settings.workers.max_count} places are taken (workers.max_count); try again later",
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )


@dataclasses.dataclass(frozen=True)
class Body:
    """The gradient of a push as it arrived: leaves, or the error that kept them from being read.

    Attributes:
        leaves: in canonical order; empty with an error.
        error: or None.
        finite: whether every element is.
    """

    leaves: Sequence[NDArray[Any]] = ()
    error: codec.CodecError | None = None
    finite: bool = True

    @classmethod
    def read(cls, data: codec.Buffer, crc32: int | None, schema: Schema) -> Self:
        """Read the bytes of a whole body; `crc32` is None where they came in chunks, which have their own."""
        try:
            leaves = leaves_of(data, crc32, schema)
        except codec.CodecError as error:
            return cls(error=error)
        return cls(leaves, finite=all(bool(np.isfinite(leaf).all()) for leaf in leaves))

    @classmethod
    def received(
        cls, push: learner_pb2.GradientEstimatorOut, data: codec.Buffer | codec.CodecError, schema: Schema
    ) -> Self:
        """Read the body that came with a push, or keep the error that came in its place."""
        if isinstance(data, codec.CodecError):
            return cls(error=data)
        return cls.read(data, checksum_of(push), schema)

    def objection(self) -> Objection | None:
        """Say why the body is of no use, or None."""
        if self.error is None:
            return None
        return Objection(verdict_on(self.error), str(self.error))


def is_finite(body: Body, weight: float, mean_loss: float) -> bool:
    """Whether a push can be averaged at all. The library leaves the same ones out in a single process."""
    return body.finite and math.isfinite(mean_loss) and math.isfinite(weight) and weight >= 0
