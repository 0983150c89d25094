import threading

from protos.rpc.send_queue import SendQueue
from protos.unspool.v1.learner_pb2 import Drain, Goodbye, LearnerMessage, ThetaAnnouncement
from tests.support.patience import PATIENCE_S


def theta(outer_step: int) -> LearnerMessage:
    return LearnerMessage(theta=ThetaAnnouncement(outer_step=outer_step))


def drain(reason: str) -> LearnerMessage:
    return LearnerMessage(drain=Drain(reason=reason))


def test_messages_come_out_in_order_until_the_close() -> None:
    queue = SendQueue()
    queue.put(drain("a"))
    queue.put(drain("b"))
    queue.close()
    assert [message.drain.reason for message in queue] == ["a", "b"]


def test_only_the_newest_theta_waits() -> None:
    queue = SendQueue()
    for message in (theta(1), drain("a"), theta(2)):
        queue.put(message)
    queue.close()
    assert list(queue) == [drain("a"), theta(2)]


def test_a_theta_that_was_sent_is_not_replaced() -> None:
    queue = SendQueue()
    queue.put(theta(1))
    messages = iter(queue)
    assert next(messages) == theta(1)
    queue.put(theta(2))
    assert next(messages) == theta(2)


def test_a_goodbye_is_the_last_message() -> None:
    queue = SendQueue()
    goodbye = LearnerMessage(goodbye=Goodbye(reason=Goodbye.FINISHED))
    queue.put(goodbye)
    queue.put(drain("too late"))
    assert list(queue) == [goodbye]


def test_a_reader_that_is_too_slow_is_cut_off() -> None:
    queue = SendQueue(capacity=2)
    for reason in ("a", "b", "c"):
        queue.put(drain(reason))
    assert queue.overflowed
    assert list(queue) == []


def test_a_waiting_reader_receives_what_is_put_later() -> None:
    queue, received = SendQueue(), []
    reader = threading.Thread(target=lambda: received.extend(queue))
    reader.start()
    queue.put(drain("a"))
    queue.close()
    reader.join(PATIENCE_S)
    assert received == [drain("a")]
