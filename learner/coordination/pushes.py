"""Pushes: which are accepted, and the verdicts sent to the workers."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from learner.coordination.core_lock import CoreLock, LockedCommands, locked
from learner.coordination.lateness import Lateness
from learner.coordination.leases import Leases
from learner.coordination.quarantine import Quarantine
from learner.state.aggregation import Rejection
from learner.state.buffer import BufferedPush
from learner.state.run import Run
from learner.state.sessions import WorkerSession
from protos import codec
from protos.rpc.denials import DenialReason
from protos.rpc.push import checksum_of, leaves_of, parts_of, verdict_on
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Schema
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, LearnerMessage, Part, PartVerdict, PushVerdict

_DENIALS: Final = {
    learner_pb2.SCHEMA_MISMATCH: DenialReason.WRONG_SCHEMA,
    learner_pb2.TOO_LARGE: DenialReason.TOO_LARGE,
}


@dataclasses.dataclass(frozen=True)
class Body:
    """The gradient of a push as received: its leaves, or the error that prevented reading them.

    Attributes:
        leaves: in canonical order; empty if there is an error.
        error: the error, or None.
        finite: whether every element is finite.
    """

    leaves: Sequence[NDArray[Any]] = ()
    error: codec.CodecError | None = None
    finite: bool = True

    @classmethod
    def read(cls, push: GradientEstimatorOut, data: codec.Buffer | codec.CodecError, schema: Schema) -> Self:
        """Read the body received with a push, or keep the error received in its place."""
        if isinstance(data, codec.CodecError):
            return cls(error=data)
        try:
            leaves = leaves_of(data, checksum_of(push), schema)
        except codec.CodecError as error:
            return cls(error=error)
        return cls(leaves, finite=all(bool(np.isfinite(leaf).all()) for leaf in leaves))


class Pushes(LockedCommands):
    """Judges pushes and sends each verdict to the worker."""

    def __init__(self, lock: CoreLock, run: Run, leases: Leases, quarantine: Quarantine) -> None:
        super().__init__(lock)
        self._run = run
        self._leases = leases
        self._quarantine = quarantine
        self._lateness = Lateness(run, leases)

    @locked
    def announce(self, session_id: str, push: GradientEstimatorOut) -> bool:
        """Return whether to read the body of a push; if not, answer the push."""
        session = self._run.sender(session_id)
        return session is not None and self._passes(session, push, None)

    @locked
    def receive(self, session_id: str, push: GradientEstimatorOut, body: Body) -> None:
        """Judge a push, buffer it if it is accepted, and answer it.

        The push is judged again, because the run may have changed since its announcement. A non-finite push
        is buffered without gradient and with weight 0, so that the update does not wait for it: a repetition
        of the estimate would give the same result.
        """
        session = self._run.sender(session_id)
        if session is None or not self._passes(session, push, body):
            return
        parts = parts_of(push)
        buffered = BufferedPush.of(push, parts, session_id, self._run.clock())
        finite = body.finite and _has_finite_weight(buffered)
        filled: dict[str, Any] = {"grad": body.leaves} if finite else {"weight": 0.0, "mean_loss": 0.0}
        for part in parts:
            self._advance(session, part)
        self._run.buffer.add(dataclasses.replace(buffered, **filled))
        if finite:
            self._answer(session, _about(push), learner_pb2.ACCEPTED)
        else:
            detail = "counts as an arrival without weight"
            self._answer(session, _about(push), learner_pb2.NONFINITE, detail)
        for part in parts:
            # The mean does not show which part is not finite, so no lane is blamed; relays omit such parts.
            self._quarantine.estimated(self._run.lanes[part.lane], finite=finite or bool(push.parts))

    def settle(self, push: BufferedPush, verdict: learner_pb2.Verdict, detail: str = "") -> None:
        """Count the final verdict on an accepted push; send it to the worker if its session is still open.

        Used under the core's lock.
        """
        session = self._run.sessions.get(push.session_id)
        if session is None:
            self._run.telemetry.counters.judged(verdict)
        else:
            self._answer(session, _about(push), verdict, detail)

    def _passes(self, session: WorkerSession, push: GradientEstimatorOut, body: Body | None) -> bool:
        """Return whether the received part of a push can be accepted; if not, answer the push."""
        about = _about(push)
        rejection = self._judge(session, push, body, about)
        if rejection is not None:
            self._answer(session, about, rejection.verdict, rejection.detail)
        return rejection is None

    def _judge(
        self, session: WorkerSession, push: GradientEstimatorOut, body: Body | None, about: PushVerdict
    ) -> Rejection | None:
        """Return why a push is rejected, or None. `body` is None if it has not been read yet.

        A merged push is rejected if any of its parts is; all rejected parts are added to `about`.
        """
        rejection = self._judge_whole(push)
        if rejection is None:
            rejected = self._rejected_parts(session, parts_of(push))
            if push.parts:
                about.parts.extend(
                    PartVerdict(lane=part.lane, seq=part.seq, verdict=why.verdict, detail=why.detail)
                    for part, why in rejected
                )
            rejection = rejected[0][1] if rejected else None
        if rejection is None and body is not None and body.error is not None:
            rejection = Rejection(verdict_on(body.error), str(body.error))
        if rejection is None and (self._run.buffer.full or not self._leases.credits(session.session_id)):
            rejection = Rejection(learner_pb2.NO_CREDIT, "")
        return rejection

    def _judge_whole(self, push: GradientEstimatorOut) -> Rejection | None:
        """Return why a push is rejected independently of its parts, or None."""
        run = self._run
        if run.control.final is not None:
            return Rejection(learner_pb2.CLOSED, f"the run is {run.control.final}")
        if push.parts and not run.merges:
            return Rejection(
                learner_pb2.SCHEMA_MISMATCH, f"merged, which {run.settings.aggregation.mode} does not accept"
            )
        if len(push.parts) > len(run.lanes):
            detail = f"{len(push.parts)} parts; there are {len(run.lanes)} lanes"
            return Rejection(learner_pb2.TOO_LARGE, detail)
        return None

    def _rejected_parts(self, session: WorkerSession, parts: Sequence[Part]) -> list[tuple[Part, Rejection]]:
        """Return the rejected parts with the reasons."""
        rejected = []
        reached: dict[int, int] = {}
        for part in parts:
            rejection = self._judge_part(session, part, reached.get(part.lane, 0))
            reached[part.lane] = max(part.seq, reached.get(part.lane, 0))
            if rejection is not None:
                rejected.append((part, rejection))
                if rejection.verdict == learner_pb2.STALE:
                    self._observe(session, part)
        return rejected

    def _judge_part(self, session: WorkerSession, part: Part, reached: int) -> Rejection | None:
        """Return why an estimate is rejected, or None.

        `reached` is the largest seq of the same lane among the earlier parts of the push.
        """
        run = self._run
        lane = run.lanes.leased(session.session_id, part.lane, part.fencing_token)
        if lane is None:
            return Rejection(learner_pb2.NOT_LEASED, f"lane {part.lane}, fencing token {part.fencing_token}")
        if part.seq <= max(lane.accepted, reached):
            return Rejection(learner_pb2.DUPLICATE, f"the lane is at seq {max(lane.accepted, reached)}")
        return run.aggregation.reject(part.seq, part.outer_step, run.outer_step)

    def _advance(self, session: WorkerSession, part: Part) -> None:
        """Record an accepted estimate."""
        lane = self._run.lanes[part.lane]
        lane.accepted = part.seq
        lane.inner_step = part.unroll_info.inner_step_mean
        lane.loss = part.mean_loss
        lane.compute_times_s.append(part.compute_s)
        session.estimates += 1
        self._run.failures.succeeded(part.lane, part.seq, session.join_request.host)
        self._observe(session, part)

    def _observe(self, session: WorkerSession, part: Part) -> None:
        """Record the arrival time and compute time of an estimate, including stale ones."""
        now_s = self._run.clock()
        self._run.arrivals.arrived(part.outer_step, now_s)
        self._run.throughput.observe(session.session_id, part.lane, part.compute_s, now_s)

    def _answer(
        self, session: WorkerSession, about: PushVerdict, verdict: learner_pb2.Verdict, detail: str = ""
    ) -> None:
        about.verdict, about.detail = verdict, detail
        about.outer_step, about.credits = self._run.outer_step, self._leases.credits(session.session_id)
        self._run.telemetry.counters.judged(verdict)
        if verdict in _DENIALS:
            self._run.telemetry.denials.add(_DENIALS[verdict], f"{session.name}: {detail}")
        session.send(LearnerMessage(verdict=about))
        self._lateness.judged(session, verdict)


def _about(push: GradientEstimatorOut | BufferedPush) -> PushVerdict:
    return PushVerdict(push_id=push.push_id, lane=push.lane, seq=push.seq)


def _has_finite_weight(push: BufferedPush) -> bool:
    """Return whether a push can be averaged. The single-process trainer omits the same ones."""
    return math.isfinite(push.mean_loss) and math.isfinite(push.weight) and push.weight >= 0
