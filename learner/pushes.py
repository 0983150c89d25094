"""Pushes: which are taken, and what their senders are told."""

from typing import Final

from learner.admission import Body, is_finite
from learner.aggregation import Objection
from learner.buffer import Contribution
from learner.leases import Leases
from learner.refusals import Reason
from learner.run import Run
from learner.sessions import WorkerSession
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import GradientEstimatorOut, LearnerMessage, PushVerdict

_MISFITS: Final = {
    learner_pb2.SCHEMA_MISMATCH: Reason.WRONG_SCHEMA,
    learner_pb2.TOO_LARGE: Reason.TOO_LARGE,
}


class Pushes:
    """Judges each push once, and answers each verdict to its sender."""

    def __init__(self, run: Run, leases: Leases) -> None:
        self._run = run
        self._leases = leases

    def refuse(self, session: WorkerSession, push: GradientEstimatorOut, body: Body) -> bool:
        """Answer a push that is of no use; returns whether it was. An unread body is an empty `Body`."""
        objection = self._objection(session, push, body)
        if objection is not None:
            self._answer(session, push, *objection)
        return objection is not None

    def accept(self, session: WorkerSession, push: GradientEstimatorOut, body: Body) -> None:
        """Take a push in and answer it. One that is not finite counts as an arrival and weighs nothing.

        It must not be waited for any longer, and whoever repeats the estimate would get the same.
        """
        finite = is_finite(push, body)
        lane = self._run.lanes[push.lane]
        lane.accepted = push.seq
        lane.inner_step = push.unroll_info.inner_step_mean
        lane.loss = push.mean_loss
        session.estimates += 1
        session.compute_times_s.append(push.compute_s)
        self._run.buffer.add(
            Contribution(
                lane=push.lane,
                seq=push.seq,
                theta_version=push.theta_version,
                worker_id=session.worker_id,
                push_id=push.push_id,
                weight=push.weight if finite else 0.0,
                mean_loss=push.mean_loss if finite else 0.0,
                grad=body.leaves if finite else None,
                inner_steps=push.unroll_info.inner_steps,
                arrived_s=self._run.clock(),
            )
        )
        if finite:
            self._answer(session, push, learner_pb2.ACCEPTED, "")
        else:
            self._answer(session, push, learner_pb2.NONFINITE, "counts as an arrival without weight")

    def settle(self, item: Contribution, verdict: learner_pb2.Verdict, detail: str = "") -> None:
        """Tell the sender of an accepted push what became of it, if it is still here."""
        session = self._run.sessions.get(item.worker_id)
        if session is not None:
            about = PushVerdict(push_id=item.push_id, lane=item.lane, seq=item.seq)
            self._send(session, about, verdict, detail)

    def _objection(self, session: WorkerSession, push: GradientEstimatorOut, body: Body) -> Objection | None:
        run = self._run
        if run.phase.final is not None:
            return Objection(learner_pb2.CLOSED, f"the run is {run.phase.final}")
        lane = run.lanes.leased(session.worker_id, push.lane, push.incarnation)
        if lane is None:
            return Objection(learner_pb2.NOT_LEASED, f"lane {push.lane}, incarnation {push.incarnation}")
        if (objection := body.objection()) is not None:
            return objection
        if push.seq <= lane.accepted:
            return Objection(learner_pb2.DUPLICATE, f"the lane is at seq {lane.accepted}")
        if (objection := run.aggregation.objection(push.seq, push.theta_version, run.version)) is not None:
            return objection
        if run.buffer.full or self._leases.credits(session.worker_id) == 0:
            return Objection(learner_pb2.NO_CREDIT, "")
        return None

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
