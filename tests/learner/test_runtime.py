"""Mailboxes, the lock around the core, and who is woken."""

import contextlib
import threading
import time
from pathlib import Path

import pytest

from learner.core import LearnerCore
from learner.runtime import Runtime
from protos.rpc.send_queue import SendQueue
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import LearnerMessage
from tests.learner.builders import Peer, make_core


def theta(version: int) -> LearnerMessage:
    return LearnerMessage(theta=learner_pb2.ThetaAnnouncement(version=version))


def ack(version: int = 0) -> LearnerMessage:
    return LearnerMessage(heartbeat_ack=learner_pb2.HeartbeatAck(version=version))


def goodbye() -> LearnerMessage:
    return LearnerMessage(goodbye=learner_pb2.Goodbye())


@pytest.fixture
def core(tmp_path: Path) -> LearnerCore:
    return make_core(tmp_path)


def test_messages_come_out_in_order_until_the_mailbox_is_closed() -> None:
    mailbox = SendQueue()
    for version in range(3):
        mailbox.put(ack(version))
    mailbox.close()
    assert list(mailbox) == [ack(0), ack(1), ack(2)]


def test_only_the_newest_theta_waits() -> None:
    mailbox = SendQueue()
    for message in (theta(1), ack(), theta(2), theta(3)):
        mailbox.put(message)
    mailbox.close()
    assert list(mailbox) == [ack(), theta(3)]


def test_a_goodbye_is_the_last_message() -> None:
    mailbox = SendQueue()
    mailbox.put(goodbye())
    mailbox.put(ack())
    assert list(mailbox) == [goodbye()]


def test_a_worker_that_does_not_read_is_cut_off() -> None:
    mailbox = SendQueue(capacity=2)
    for _ in range(3):
        mailbox.put(ack())
    assert mailbox.overflowed
    assert list(mailbox) == []


def test_a_reader_waits_for_a_message() -> None:
    mailbox = SendQueue()
    got: list[LearnerMessage] = []
    reader = threading.Thread(target=lambda: got.extend(mailbox))
    reader.start()
    mailbox.put(ack(1))
    mailbox.close()
    reader.join(10)
    assert got == [ack(1)]


def test_mail_goes_out_when_the_lock_is_let_go(core: LearnerCore) -> None:
    runtime = Runtime(core)
    peer = Peer(core, attach=False)
    attached = runtime.attach(peer.worker_id)
    assert attached is not None
    kinds = [next(iter(attached[1])).WhichOneof("body") for _ in range(4)]
    assert kinds == ["theta", "grant", "grant", "grant"]


def test_mail_goes_out_although_a_call_failed(core: LearnerCore) -> None:
    runtime = Runtime(core)
    _, mailbox = runtime.attach(Peer(core, attach=False).worker_id) or (0, SendQueue())
    with contextlib.suppress(KeyError), runtime.locked() as locked:
        locked.operator.drain("w0", "test", 1.0)
        locked.operator.drain("nobody", "test", 1.0)
    assert len(mailbox) == 5


def test_a_new_stream_ends_the_old_one(core: LearnerCore) -> None:
    runtime = Runtime(core)
    peer = Peer(core, attach=False)
    _, old = runtime.attach(peer.worker_id) or (0, SendQueue())
    runtime.attach(peer.worker_id)
    assert len(list(old)) == 4


def test_the_update_thread_wakes_by_itself_when_a_quorum_has_waited_long_enough(tmp_path: Path) -> None:
    core = make_core(tmp_path, time.monotonic, mode="quorum", quorum=0.1, grace_s=0.05)
    runtime, peer = Runtime(core), Peer(core)
    waiter = threading.Thread(target=lambda: runtime.wait_until(LearnerCore.batch_ready))
    waiter.start()
    message, body = peer.estimate(0, 1)
    with runtime.locked() as locked:
        locked.push(peer.worker_id, message, body)
    waiter.join(10)
    assert not waiter.is_alive()


def test_an_expired_session_has_no_stream(core: LearnerCore) -> None:
    assert Runtime(core).attach("nobody#1") is None


def test_the_update_thread_is_woken_when_there_is_work(core: LearnerCore) -> None:
    runtime = Runtime(core)
    peer = Peer(core)
    waiter = threading.Thread(target=lambda: runtime.wait_until(LearnerCore.batch_ready))
    waiter.start()
    for lane in range(3):
        message, body = peer.estimate(lane, 1)
        with runtime.locked() as locked:
            locked.push(peer.worker_id, message, body)
    waiter.join(10)
    assert not waiter.is_alive()


def test_a_core_whose_lock_is_held_does_not_respond(core: LearnerCore) -> None:
    runtime = Runtime(core)
    assert runtime.responds(timeout_s=0.0)
    answers: list[bool] = []
    with runtime.locked():
        asking = threading.Thread(target=lambda: answers.append(runtime.responds(timeout_s=0.01)))
        asking.start()
        asking.join()
    assert answers == [False]
