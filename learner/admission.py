"""Who may join, and which pushes are taken: the learner's judgements, which change nothing."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from learner.aggregation import Objection
from learner.sessions import SessionTable
from learner.settings import LearnerSettings
from protos import codec
from protos.rpc.denials import DenialReason
from protos.rpc.push import leaves_of, verdict_on
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Schema

PROTOCOL: Final = 1
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class JoinRefusedError(Exception):
    """A worker is not admitted, and asking again changes nothing until somebody does."""

    def __init__(self, reason: DenialReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class TooManyWorkersError(JoinRefusedError):
    """There is no place at the moment."""


def check_join(
    request: learner_pb2.JoinRequest,
    settings: LearnerSettings,
    sessions: SessionTable,
    excluded_hosts: Mapping[str, str],
) -> None:
    """Refuse a worker that does not fit this run.

    Raises:
        JoinRefusedError: with the reason and the remedy.
    """
    if not request.protocol_min <= PROTOCOL <= request.protocol_max:
        raise JoinRefusedError(
            DenialReason.WRONG_PROTOCOL,
            f"this learner speaks protocol {PROTOCOL}, the worker {request.protocol_min} to "
            f"{request.protocol_max}; install the same version of unspool on both",
        )
    if request.run_id not in ("", settings.run_id):
        raise JoinRefusedError(
            DenialReason.WRONG_RUN,
            f"this learner serves run {settings.run_id!r}, the worker asked for {request.run_id!r}",
        )
    if not _NAME.fullmatch(request.worker_name) or not _NAME.fullmatch(request.incarnation):
        raise JoinRefusedError(
            DenialReason.BAD_NAME,
            f"Join(worker_name={request.worker_name!r}, incarnation={request.incarnation!r}): each must be "
            "1 to 64 letters, digits, dots, dashes or underscores",
        )
    if request.host in excluded_hosts:
        raise JoinRefusedError(
            DenialReason.EXCLUDED_HOST,
            f"host {request.host!r} is excluded: {excluded_hosts[request.host]}; mend it, then begin another "
            "life of the learner, which excludes nobody",
        )
    if sessions.named(request.worker_name) is None and len(sessions) >= settings.workers.max_count:
        raise TooManyWorkersError(
            DenialReason.NO_ROOM,
            f"all {settings.workers.max_count} places are taken (workers.max_count); try again later",
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

    def objection(self) -> Objection | None:
        """Say why the body is of no use, or None."""
        if self.error is None:
            return None
        return Objection(verdict_on(self.error), str(self.error))


def is_finite(body: Body, weight: float, mean_loss: float) -> bool:
    """Whether a push can be averaged at all. The library leaves the same ones out in a single process."""
    return body.finite and math.isfinite(mean_loss) and math.isfinite(weight) and weight >= 0
