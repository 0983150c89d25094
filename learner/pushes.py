"""Pushes: which are taken, and what their senders are told."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from learner.admission import Body, is_finite
from learner.aggregation import Objection
from learner.buffer import Contribution
from learner.contributions import contribution_of
from learner.leases import Leases
from learner.run import Run
from learner.sessions import WorkerSession
from learner.strikes import Strikes
from protos.rpc.denials import DenialReason
from protos.rpc.push import parts_of
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import (
    GradientEstimatorOut,
    LearnerMessage,
    Part,
    PartVerdict,
    PushVerdict,
)

_MISFITS: Final = {
    learner_pb2.SCHEMA_MISMATCH: DenialReason.WRONG_SCHEMA,
    learner_pb2.TOO_LARGE: DenialReason.TOO_LARGE,
}


class Pushes:
    """Judges each push once, and answers each verdict to its sender."""

    def __init__(self, run: Run, leases: Leases) -> None:
        self._run = run
        self._leases = leases
        self._strikes = Strikes(run, leases)

    def refuse(self, session: WorkerSession, push: GradientEstimatorOut, body: Body) -> bool:
        """Answer a push that is of no use; returns whether it was. An unread body is an empty `Body`.

        Of a merged push nothing is taken if one part is of no use; the answer names all that are not.
        """
        about = PushVerdict(push_id=push.push_id, lane=push.lane, seq=push.seq)
        objection = self._misfit(push)
        if objection is None:
            offending = self._offending(session, parts_of(push))
            objection = offending[0][1] if offending else None
            if push.parts:
                about.parts.extend(_part_verdict(part, why) for part, why in offending)
        objection = objection or body.objection() or self._no_room(session)
        if objection is not None:
            self._send(session, about, *objection)
        return objection is not None

    def accept(self, session: WorkerSession, push: GradientEstimatorOut, body: Body) -> None:
        """Take a push in and answer it. One that is not finite counts as an arrival and weighs nothing.

        It must not be waited for any longer, and whoever repeats the estimate would get the same.
        """
        parts = parts_of(push)
        item = contribution_of(push, parts, session.worker_id, self._run.clock())
        finite = is_finite(body, item.weight, item.mean_loss)
        weighing: dict[str, Any] = {"grad": body.leaves} if finite else {"weight": 0.0, "mean_loss": 0.0}
        for part in parts:
            self._advance(session, part)
        self._run.buffer.add(dataclasses.replace(item, **weighing))
        if finite:
            self._answer(session, push, learner_pb2.ACCEPTED, "")
        else:
            self._answer(session, push, learner_pb2.NONFINITE, "counts as an arrival without weight")
        for part in parts:
            # A mean does not say which of its parts is to blame; whoever merges leaves such parts out.
            self._strikes.estimated(self._run.lanes[part.lane], finite=finite or bool(push.parts))

    def settle(self, item: Contribution, verdict: learner_pb2.Verdict, detail: str = "") -> None:
        """Count what became of an accepted push, and tell its sender if that is still here."""
        session = self._run.sessions.get(item.worker_id)
        if session is None:
            self._run.tally.judged(verdict)
            return
        about = PushVerdict(push_id=item.push_id, lane=item.lane, seq=item.seq)
        self._send(session, about, verdict, detail)

    def _advance(self, session: WorkerSession, part: Part) -> None:
        """Put an estimate on record."""
        lane = self._run.lanes[part.lane]
        lane.accepted = part.seq
        lane.inner_step = part.unroll_info.inner_step_mean
        lane.loss = part.mean_loss
        lane.compute_times_s.append(part.compute_s)
        session.estimates += 1
        self._run.failures.succeeded(part.lane, part.seq, session.introduction.host)
        self._observe(session, part)

    def _misfit(self, push: GradientEstimatorOut) -> Objection | None:
        """Say why a push is of no use whatever it holds, or None."""
        run = self._run
        if run.phase.final is not None:
            return Objection(learner_pb2.CLOSED, f"the run is {run.phase.final}")
        if push.parts and not run.merges:
            return Objection(
                learner_pb2.SCHEMA_MISMATCH, f"merged, which {run.settings.aggregation.mode} does not take"
            )
        if len(push.parts) > len(run.lanes):
            detail = f"{len(push.parts)} parts; there are {len(run.lanes)} lanes"
            return Objection(learner_pb2.TOO_LARGE, detail)
        return None

    def _offending(self, session: WorkerSession, parts: Sequence[Part]) -> list[tuple[Part, Objection]]:
        """Return the parts that are of no use, and why."""
        offending = []
        reached: dict[int, int] = {}
        for part in parts:
            objection = self._objection(session, part, reached.get(part.lane, 0))
            reached[part.lane] = max(part.seq, reached.get(part.lane, 0))
            if objection is None:
                continue
            offending.append((part, objection))
            if objection.verdict == learner_pb2.STALE:
                self._observe(session, part)
        return offending

    def _objection(self, session: WorkerSession, part: Part, reached: int) -> Objection | None:
        """Say why an estimate is of no use, or None; earlier parts of its push have `reached` that seq."""
        run = self._run
        lane = run.lanes.leased(session.worker_id, part.lane, part.incarnation)
        if lane is None:
            return Objection(learner_pb2.NOT_LEASED, f"lane {part.lane}, incarnation {part.incarnation}")
        if part.seq <= max(lane.accepted, reached):
            return Objection(learner_pb2.DUPLICATE, f"the lane is at seq {max(lane.accepted, reached)}")
        return run.aggregation.objection(part.seq, part.theta_version, run.version)

    def _no_room(self, session: WorkerSession) -> Objection | None:
        is_full = self._run.buffer.full or self._leases.credits(session.worker_id) == 0
        return Objection(learner_pb2.NO_CREDIT, "") if is_full else None

    def _observe(self, session: WorkerSession, part: Part) -> None:
        """Learn from when an estimate came and what it took, were it too late to be used."""
        now_s = self._run.clock()
        self._run.arrivals.arrived(part.theta_version, now_s)
        self._run.paces.observe(session.worker_id, part.lane, part.compute_s, now_s)

    def _answer(
        self, session: WorkerSession, push: GradientEstimatorOut, verdict: learner_pb2.Verdict, detail: str
    ) -> None:
        about = PushVerdict(push_id=push.push_id, lane=push.lane, seq=push.seq)
        self._send(session, about, verdict, detail)

    def _send(
        self, session: WorkerSession, about: PushVerdict, verdict: learner_pb2.Verdict, detail: str
    ) -> None:
        about.verdict, about.detail = verdict, detail
        about.version, about.credits = self._run.version, self._leases.credits(session.worker_id)
        self._run.tally.judged(verdict)
        if verdict in _MISFITS:
            self._run.refusals.add(_MISFITS[verdict], f"{session.name}: {about.detail}")
        self._run.send(session, LearnerMessage(verdict=about))
        self._strikes.judged(session, verdict)


def _part_verdict(part: Part, objection: Objection) -> PartVerdict:
    return PartVerdict(lane=part.lane, seq=part.seq, verdict=objection.verdict, detail=objection.detail)
