"""Pending pushes of a relay, with a session state whose stream is read by the test."""

from collections.abc import Sequence

import numpy as np
import pytest

from protos import codec
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import (
    GradientEstimatorOut,
    Heartbeat,
    HeartbeatAck,
    JoinReply,
    PartVerdict,
)
from workers.relay.merging import PendingPush
from workers.relay.pushes import RelayPushes
from workers.session.session_state import Joined, SessionState

SCHEMA = codec.schema_of([np.zeros(2, np.float32)])


class Sent:
    """The pushes that a relay's session state has sent."""

    def __init__(self) -> None:
        self.state = SessionState(forwards=True)
        self.state.joined(Joined(JoinReply(chunk_bytes=1 << 16), frozenset(), fresh=True))
        self._messages = self.state.new_stream(Heartbeat)
        next(self._messages)

    def credits(self, credits: int) -> None:
        self.state.receive(learner_pb2.LearnerMessage(heartbeat_ack=HeartbeatAck(credits=credits)))

    def next(self) -> GradientEstimatorOut:
        return next(self._messages).push


@pytest.fixture
def sent() -> Sent:
    sent = Sent()
    sent.credits(9)
    return sent


def pending(lane: int, session_id: str = "w0", *, can_merge: bool = True) -> PendingPush:
    push = GradientEstimatorOut(push_id=10 + lane, lane=lane, seq=1, weight=1.0)
    return PendingPush(session_id, push, np.full(2, lane, np.float32).tobytes(), can_merge)


def verdict(
    push: GradientEstimatorOut, word: learner_pb2.Verdict, *parts: PartVerdict
) -> learner_pb2.PushVerdict:
    return learner_pb2.PushVerdict(push_id=push.push_id, verdict=word, parts=parts)


def lanes_of(push: GradientEstimatorOut) -> list[int]:
    return [part.lane for part in push.parts]


def relay_after_its_first_verdict(
    sent: Sent,
    added: Sequence[PendingPush],
    *,
    most_merged: int = 8,
    word: learner_pb2.Verdict = learner_pb2.ACCEPTED,
) -> RelayPushes:
    """Return the pushes of a relay that has received `word` on the first, and has sent the others."""
    pushes = RelayPushes(sent.state, SCHEMA, most_merged=most_merged)
    for push in added:
        pushes.add(push)
    pushes.settle(verdict(sent.next(), word))
    pushes.flush()
    return pushes


def test_without_merging_every_push_is_sent_at_once(sent):
    pushes = RelayPushes(sent.state, SCHEMA, most_merged=1)
    for lane in range(2):
        pushes.add(pending(lane))
    assert [sent.next().lane for _ in range(2)] == [0, 1]


def test_pushes_wait_for_the_first_verdict_and_are_then_merged(sent):
    relay_after_its_first_verdict(sent, [pending(lane) for lane in range(4)])
    merged = sent.next()
    assert lanes_of(merged) == [1, 2, 3]
    np.testing.assert_array_equal(np.frombuffer(merged.grad.inline, np.float32), [2.0, 2.0])


def test_no_more_estimates_are_merged_than_allowed(sent):
    relay_after_its_first_verdict(sent, [pending(lane) for lane in range(4)], most_merged=2)
    assert lanes_of(sent.next()) == [1, 2]


def test_a_push_that_cannot_be_merged_ends_a_group(sent):
    pushes = RelayPushes(sent.state, SCHEMA, most_merged=8)
    for lane in range(4):
        pushes.add(pending(lane, can_merge=lane != 2))
    pushes.flush(force=True)
    groups = [sent.next() for _ in range(4)]
    assert [(push.lane, lanes_of(push)) for push in groups] == [(0, []), (1, []), (2, []), (3, [])]


def test_a_verdict_on_a_merged_push_is_passed_to_every_sender_under_its_own_id(sent):
    pushes = relay_after_its_first_verdict(sent, [pending(lane, f"w{lane}") for lane in range(3)])
    answers = pushes.settle(verdict(sent.next(), learner_pb2.APPLIED))
    assert [(answer.held.session_id, answer.verdict.push_id) for answer in answers] == [
        ("w1", 11),
        ("w2", 12),
    ]


def test_estimates_that_were_not_rejected_are_sent_again_without_the_others(sent):
    pushes = relay_after_its_first_verdict(
        sent, [pending(lane) for lane in range(4)], word=learner_pb2.APPLIED
    )
    rejected = PartVerdict(lane=2, seq=1, verdict=learner_pb2.STALE)
    answers = pushes.settle(verdict(sent.next(), learner_pb2.STALE, rejected))
    assert [(answer.held.push.lane, answer.verdict.verdict) for answer in answers] == [(2, learner_pb2.STALE)]
    pushes.flush()
    assert lanes_of(sent.next()) == [1, 3]


@pytest.mark.parametrize("word", [learner_pb2.NO_CREDIT, learner_pb2.CORRUPT])
def test_a_verdict_that_the_outbox_handles_answers_nobody(sent, word):
    pushes = RelayPushes(sent.state, SCHEMA, most_merged=1)
    pushes.add(pending(0))
    assert pushes.settle(verdict(sent.next(), word)) == []
    assert pushes.count("w0") == 1


def test_pushes_are_counted_until_their_final_verdict(sent):
    pushes = RelayPushes(sent.state, SCHEMA, most_merged=1)
    pushes.add(pending(0, "w0"))
    pushes.add(pending(1, "w1"))
    first = sent.next()
    pushes.settle(verdict(first, learner_pb2.ACCEPTED))
    assert (pushes.count("w0"), pushes.accepted("w0"), pushes.accepted("w1"), pushes.accepted()) == (
        1,
        1,
        0,
        1,
    )
    assert pushes.find("w0", 10) == learner_pb2.ACCEPTED
    assert pushes.find("w1", 11) == learner_pb2.VERDICT_UNSPECIFIED
    pushes.settle(verdict(first, learner_pb2.APPLIED))
    assert (pushes.count("w0"), pushes.accepted()) == (0, 0)
    assert pushes.find("w0", 10) is None
