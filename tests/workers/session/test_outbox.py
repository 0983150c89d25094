import pytest

from protos.unspool.v1 import common_pb2, learner_pb2
from workers.session.outbox import Outbox, QueuedMessage

CHUNK_BYTES = 4


def queued_push(push_id: int, body: bytes = b"") -> QueuedMessage:
    push = learner_pb2.GradientEstimatorOut(push_id=push_id, grad=common_pb2.Tensors(transfer=push_id))
    return QueuedMessage(learner_pb2.WorkerMessage(push=push), body, push_id, push_id=push_id)


def returned(lane: int) -> QueuedMessage:
    return QueuedMessage(learner_pb2.WorkerMessage(lane_return=learner_pb2.LaneReturn(lane=lane)))


def verdict(push_id: int, name: str) -> learner_pb2.PushVerdict:
    return learner_pb2.PushVerdict(push_id=push_id, verdict=learner_pb2.Verdict.Value(name))


def drained(outbox: Outbox) -> list[learner_pb2.WorkerMessage]:
    return list(iter(outbox.next_message, None))


def kinds(messages: list[learner_pb2.WorkerMessage]) -> list[str | None]:
    return [message.WhichOneof("body") for message in messages]


@pytest.fixture
def outbox() -> Outbox:
    outbox = Outbox(capacity=3)
    outbox.restart(CHUNK_BYTES)
    return outbox


def test_a_body_follows_its_message_in_chunks(outbox):
    outbox.put(queued_push(1, b"0123456789"))
    header, *chunks = drained(outbox)
    assert header.push.push_id == 1
    assert [(message.chunk.offset, message.chunk.data) for message in chunks] == [
        (0, b"0123"),
        (4, b"4567"),
        (8, b"89"),
    ]


def test_a_heartbeat_overtakes_the_rest_of_a_body(outbox):
    outbox.put(queued_push(1, b"01234567"))
    words = [outbox.next_message(), outbox.next_message()]
    outbox.set_heartbeat(learner_pb2.Heartbeat())
    assert kinds(words + drained(outbox)) == ["push", "chunk", "heartbeat", "chunk"]


def test_a_heartbeat_that_was_not_sent_is_replaced_by_a_newer_one(outbox):
    outbox.set_heartbeat(learner_pb2.Heartbeat(progress=1))
    outbox.set_heartbeat(learner_pb2.Heartbeat(progress=2))
    assert [message.heartbeat.progress for message in drained(outbox)] == [2]


def test_the_oldest_log_lines_are_lost_first(outbox):
    for number in range(100):
        outbox.send_soon(learner_pb2.WorkerMessage(log=learner_pb2.LogLine(text=str(number))))
    lines = [message.log.text for message in drained(outbox)]
    assert len(lines) < 100
    assert lines[-1] == "99"


def test_pushes_without_a_final_verdict_are_sent_again_before_anything_else(outbox):
    outbox.put(queued_push(1))
    outbox.put(queued_push(2))
    drained(outbox)
    outbox.settle(verdict(1, "ACCEPTED"))
    outbox.put(returned(0))
    outbox.restart(CHUNK_BYTES)
    assert [m.push.push_id or m.WhichOneof("body") for m in drained(outbox)] == [1, 2, "lane_return"]


def test_what_was_cut_off_starts_over(outbox):
    outbox.put(queued_push(1, b"01234567"))
    outbox.next_message()
    outbox.next_message()
    outbox.restart(CHUNK_BYTES)
    assert kinds(drained(outbox)) == ["push", "chunk", "chunk"]


@pytest.mark.parametrize("word", ["APPLIED", "DUPLICATE", "STALE", "NONFINITE", "NOT_LEASED", "CLOSED"])
def test_a_push_with_a_final_verdict_is_removed(outbox, word):
    outbox.put(queued_push(1))
    drained(outbox)
    outbox.settle(verdict(1, word))
    outbox.restart(CHUNK_BYTES)
    assert drained(outbox) == []


@pytest.mark.parametrize("word", ["NO_CREDIT", "CORRUPT"])
def test_a_push_at_a_bad_moment_is_sent_again_once_there_is_a_credit(outbox, word):
    outbox.put(queued_push(1))
    drained(outbox)
    outbox.settle(verdict(1, word))
    outbox.credit(0)
    assert drained(outbox) == []
    outbox.credit(1)
    assert [message.push.push_id for message in drained(outbox)] == [1]


def test_a_verdict_on_a_body_that_is_still_leaving_stops_it(outbox):
    outbox.put(queued_push(1, b"01234567"))
    outbox.put(returned(0))
    outbox.next_message()
    outbox.settle(verdict(1, "TOO_LARGE"))
    assert kinds(drained(outbox)) == ["lane_return"]


def test_pushes_that_are_not_answered_use_up_credits(outbox):
    outbox.credit(2)
    outbox.put(queued_push(1))
    assert outbox.free_credits == 1
    outbox.settle(verdict(1, "ACCEPTED"))
    outbox.credit(1)
    assert outbox.free_credits == 1


def test_credits_of_an_earlier_stream_are_void(outbox):
    outbox.credit(5)
    outbox.restart(CHUNK_BYTES)
    assert outbox.free_credits == 0


def test_there_is_no_room_beyond_the_capacity(outbox):
    for push_id in range(1, 4):
        assert outbox.has_room
        outbox.put(queued_push(push_id))
    assert not outbox.has_room
    drained(outbox)
    assert outbox.has_room
