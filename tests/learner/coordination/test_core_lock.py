"""Send queues, the lock of the core, and how the update thread is woken."""

import threading
import time
from pathlib import Path

import pytest

from learner.errors import BrokenRunError
from protos.rpc.send_queue import SendQueue
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import LearnerMessage
from tests.learner.builders import Peer, WatchedCore, make_core


def theta(outer_step: int) -> LearnerMessage:
    return LearnerMessage(theta=learner_pb2.ThetaAnnouncement(outer_step=outer_step))


def ack(outer_step: int = 0) -> LearnerMessage:
    return LearnerMessage(heartbeat_ack=learner_pb2.HeartbeatAck(outer_step=outer_step))


def goodbye() -> LearnerMessage:
    return LearnerMessage(goodbye=learner_pb2.Goodbye())


@pytest.fixture
def core(tmp_path: Path) -> WatchedCore:
    return make_core(tmp_path)


def test_messages_come_out_in_order_until_the_mailbox_is_closed() -> None:
    mailbox = SendQueue()
    for outer_step in range(3):
        mailbox.put(ack(outer_step))
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


def test_a_stream_gets_the_theta_and_the_leases(core: WatchedCore) -> None:
    stream = Peer(core).stream
    assert stream is not None
    kinds = [next(iter(stream)).WhichOneof("body") for _ in range(4)]
    assert kinds == ["theta", "grant", "grant", "grant"]


def test_a_new_stream_ends_the_old_one(core: WatchedCore) -> None:
    peer = Peer(core)
    old = peer.stream
    core.attach(peer.secret)
    assert old is not None
    assert len(list(old)) == 4


def test_an_old_stream_that_ends_leaves_the_new_one_open(core: WatchedCore) -> None:
    peer = Peer(core)
    old, new = peer.stream, peer.attach()
    assert old is not None
    core.detach(peer.session_id, old)
    assert peer.session.stream is new


def test_an_expired_session_has_no_stream(core: WatchedCore) -> None:
    assert core.attach("no secret of a Join") is None


def test_the_update_thread_is_woken_when_there_is_work(core: WatchedCore) -> None:
    peer = Peer(core)
    waiter = threading.Thread(target=core.updates.wait)
    waiter.start()
    for lane in range(3):
        peer.push(lane, 1)
    waiter.join(10)
    assert not waiter.is_alive()


def test_the_update_thread_wakes_by_itself_when_a_quorum_has_waited_long_enough(tmp_path: Path) -> None:
    core = make_core(tmp_path, time.monotonic, mode="quorum", quorum=0.1, grace_s=0.05)
    peer = Peer(core)
    waiter = threading.Thread(target=core.updates.wait)
    waiter.start()
    peer.push(0, 1)
    waiter.join(10)
    assert not waiter.is_alive()


def test_the_update_thread_is_woken_by_a_crash_and_saves_nothing(core: WatchedCore) -> None:
    waiter = threading.Thread(target=core.updates.wait)
    waiter.start()
    core.crashed(OSError("gone"), is_fenced=False)
    waiter.join(10)
    assert not waiter.is_alive()
    with pytest.raises(BrokenRunError, match="gone"):
        core.updates.take()


def test_a_core_does_not_respond_while_a_thread_hangs_in_it(
    core: WatchedCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()
    monkeypatch.setattr(core.events, "add", lambda *_: [entered.set(), leave.wait(10)])
    assert core.responds(timeout_s=0.0)
    hanging = threading.Thread(target=core.admin.pause)
    hanging.start()
    entered.wait(10)
    assert not core.responds(timeout_s=0.01)
    leave.set()
    hanging.join(10)
    assert core.responds(timeout_s=10.0)
