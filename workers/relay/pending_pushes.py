"""Validation of the pushes of a relay's workers, and forwarding of the learner's verdicts."""

from protos import codec
from protos.rpc.push import checksum_of, leaves_of, parts_of, verdict_on
from protos.unspool.v1 import learner_pb2
from workers.relay.merging import PendingPush, is_mergeable
from workers.relay.pushes import Answer
from workers.relay.sessions import RelayedWorker
from workers.relay.state import RelayState

_CUSTODY = 2
"""Maximum pending pushes of a worker, as a multiple of its allowance or its lanes, if more."""


class PendingPushes:
    """Rejects what a relay can judge, and leaves the rest to the learner. The relay's lock guards it."""

    def __init__(self, state: RelayState) -> None:
        self._state = state

    def refuse(self, worker: RelayedWorker, push: learner_pb2.GradientEstimatorOut) -> bool:
        """Answer a push that is already pending or is rejected whatever its body; return whether it was."""
        known = self._state.pushes.find(worker.session_id, push.push_id)
        if known is not None:
            # The worker sends the push again over a new stream. If it has no verdict yet, the verdict follows
            # later.
            if known == learner_pb2.ACCEPTED:
                self._answer(worker, push, known, "")
            return True
        lost = [part for part in parts_of(push) if not self._has_lease(worker, part)]
        if lost:
            self._answer(
                worker, push, learner_pb2.NOT_LEASED, f"lane {lost[0].lane} is not leased to it", lost
            )
            return True
        room = _CUSTODY * max(self._state.allowance(worker), len(self._state.lanes.of(worker.session_id)))
        if self._state.pushes.count(worker.session_id) >= room:
            self._answer(worker, push, learner_pb2.NO_CREDIT, "")
            return True
        return False

    def take(
        self,
        worker: RelayedWorker,
        push: learner_pb2.GradientEstimatorOut,
        body: codec.Buffer | codec.CodecError,
    ) -> None:
        """Accept a push that was not refused, unless its body violates the schema."""
        if not isinstance(body, codec.CodecError):
            try:
                leaves_of(body, checksum_of(push), self._state.reply.schema)
            except codec.CodecError as error:
                body = error
        if isinstance(body, codec.CodecError):
            self._answer(worker, push, verdict_on(body), str(body))
            return
        for part in parts_of(push):
            lane = self._state.lanes.leased(worker.session_id, part.lane, part.fencing_token)
            if lane is not None:
                lane.seq = max(lane.seq, part.seq)
        worker.compute_times_s.append(push.compute_s)
        self._state.progress += 1
        can_merge = self._state.reply.merges and is_mergeable(push, body, self._state.reply.schema)
        self._state.pushes.add(PendingPush(worker.session_id, push, body, can_merge))

    def receive(self, verdict: learner_pb2.PushVerdict) -> None:
        """Forward a verdict of the learner to the workers whose pushes it concerns."""
        self._state.credits = verdict.credits
        for answer in self._state.pushes.settle(verdict):
            self._pass_on(answer)

    def _pass_on(self, answer: Answer) -> None:
        worker = self._state.workers.get(answer.held.session_id)
        if worker is not None:
            answer.verdict.credits = self._state.share(worker)
            worker.send(learner_pb2.LearnerMessage(verdict=answer.verdict))

    def _has_lease(self, worker: RelayedWorker, part: learner_pb2.Part) -> bool:
        return self._state.lanes.leased(worker.session_id, part.lane, part.fencing_token) is not None

    def _answer(
        self,
        worker: RelayedWorker,
        push: learner_pb2.GradientEstimatorOut,
        verdict: learner_pb2.Verdict,
        detail: str,
        about: list[learner_pb2.Part] | None = None,
    ) -> None:
        answer = learner_pb2.PushVerdict(
            push_id=push.push_id,
            lane=push.lane,
            seq=push.seq,
            verdict=verdict,
            outer_step=self._state.outer_step,
            credits=0 if verdict == learner_pb2.NO_CREDIT else self._state.share(worker),
            detail=detail,
        )
        if push.parts:
            answer.parts.extend(
                learner_pb2.PartVerdict(lane=part.lane, seq=part.seq, verdict=verdict, detail=detail)
                for part in about or ()
            )
        worker.send(learner_pb2.LearnerMessage(verdict=answer))
