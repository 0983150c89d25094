"""The pending pushes of a relay: when to send them, alone or merged, and which senders get which verdict.

Merging adapts to the learner's load: while the learner has not answered the last merged push, new pushes
wait, and are sent as one when it has. An idle learner gets each push at once; a busy one gets few, large
means.
"""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from protos.rpc.push import SENT_AGAIN
from protos.unspool.v1 import common_pb2, learner_pb2
from workers.relay.merging import PendingPush, merged
from workers.session.session_state import SessionState


class Answer(NamedTuple):
    """A verdict on a pending push, for its sender."""

    held: PendingPush
    verdict: learner_pb2.PushVerdict


class RelayPushes:
    """The queue of pending pushes. Not thread-safe: the relay's lock guards it."""

    def __init__(self, session_state: SessionState, schema: common_pb2.Schema, most_merged: int) -> None:
        """Send through `session_state`, merging at most `most_merged` estimates into one push."""
        self._session_state = session_state
        self._schema = schema
        self._most_merged = most_merged
        self._waiting: collections.deque[PendingPush] = collections.deque()
        self._sent: dict[int, Sequence[PendingPush]] = {}
        self._unanswered: set[int] = set()
        self._accepted: set[int] = set()

    def count(self, session_id: str) -> int:
        """Return how many estimates of a worker have no final verdict."""
        return sum(len(held.parts) for held in self._all() if held.session_id == session_id)

    def accepted(self, session_id: str | None = None) -> int:
        """Return how many estimates, of one worker or of all, are accepted and not yet applied."""
        return sum(
            len(held.parts)
            for push_id in self._accepted
            for held in self._sent[push_id]
            if session_id in (None, held.session_id)
        )

    def find(self, session_id: str, push_id: int) -> learner_pb2.Verdict | None:
        """Return the verdict on a pending push (VERDICT_UNSPECIFIED: none yet); None if it is not pending."""
        if any(_is(held, session_id, push_id) for held in self._waiting):
            return learner_pb2.VERDICT_UNSPECIFIED
        for sent_id, group in self._sent.items():
            if any(_is(held, session_id, push_id) for held in group):
                return learner_pb2.ACCEPTED if sent_id in self._accepted else learner_pb2.VERDICT_UNSPECIFIED
        return None

    def add(self, held: PendingPush) -> None:
        """Add a push, and send it now unless it should wait to be merged."""
        self._waiting.append(held)
        self.flush()

    def flush(self, *, force: bool = False) -> None:
        """Send the pushes that may be sent now; with `force`, all of them without waiting for verdicts."""
        while self._waiting and (force or self._may_send()):
            group = self._next_group()
            if len(group) == 1:
                push = learner_pb2.GradientEstimatorOut()
                push.CopyFrom(group[0].push)
                body = bytes(group[0].body)
            else:
                push, body = merged(group, self._schema)
            self._session_state.push(push, body)
            self._sent[push.push_id] = group
            self._unanswered.add(push.push_id)

    def settle(self, verdict: learner_pb2.PushVerdict) -> list[Answer]:
        """Apply the learner's verdict on a sent push and return the answers to its senders.

        If the verdict rejects some estimates of a merged push, the others are sent again without them.
        """
        push_id = verdict.push_id
        group = self._sent.get(push_id)
        if group is None or verdict.verdict in SENT_AGAIN:
            return []
        self._unanswered.discard(push_id)
        if verdict.verdict == learner_pb2.ACCEPTED:
            self._accepted.add(push_id)
        else:
            self._accepted.discard(push_id)
            del self._sent[push_id]
        answers = self._rejections(group, verdict)
        if answers:
            rejected = {id(answer.held) for answer in answers}
            self._waiting.extendleft(held for held in reversed(group) if id(held) not in rejected)
            return answers
        return [Answer(held, _about(held, verdict)) for held in group]

    def _rejections(self, group: Sequence[PendingPush], verdict: learner_pb2.PushVerdict) -> list[Answer]:
        rejected_parts = {(part.lane, part.seq): part for part in verdict.parts}
        answers = []
        for held in group:
            found = [
                rejected_parts[key] for part in held.parts if (key := (part.lane, part.seq)) in rejected_parts
            ]
            if found:
                answers.append(Answer(held, _about(held, verdict, found)))
        return answers

    def _may_send(self) -> bool:
        if self._most_merged < 2:
            return True
        return not self._unanswered and self._session_state.free_credits > 0

    def _next_group(self) -> Sequence[PendingPush]:
        first = self._waiting.popleft()
        group = [first]
        if not first.can_merge:
            return group
        room = min(self._most_merged, self._session_state.free_credits) - len(first.parts)
        # Merge only consecutive pushes, so that their order is kept.
        while self._waiting and self._waiting[0].can_merge and len(self._waiting[0].parts) <= room:
            room -= len(self._waiting[0].parts)
            group.append(self._waiting.popleft())
        return group

    def _all(self) -> Iterator[PendingPush]:
        yield from self._waiting
        for group in self._sent.values():
            yield from group


def _is(held: PendingPush, session_id: str, push_id: int) -> bool:
    return held.session_id == session_id and held.push.push_id == push_id


def _about(
    held: PendingPush,
    verdict: learner_pb2.PushVerdict,
    rejected_parts: Sequence[learner_pb2.PartVerdict] = (),
) -> learner_pb2.PushVerdict:
    """Return the learner's verdict with the sender's own push id, lane and seq."""
    answer = learner_pb2.PushVerdict(
        push_id=held.push.push_id,
        lane=held.push.lane,
        seq=held.push.seq,
        verdict=verdict.verdict,
        outer_step=verdict.outer_step,
        detail=verdict.detail,
    )
    if rejected_parts:
        answer.verdict, answer.detail = rejected_parts[0].verdict, rejected_parts[0].detail
        if held.push.parts:
            answer.parts.extend(rejected_parts)
    return answer
