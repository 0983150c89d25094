"""The status of a worker's session."""

import pytest

from learner.state.sessions import SessionStatus, WorkerSession
from protos.unspool.v1.learner_pb2 import Heartbeat, JoinRequest

HEARTBEAT_S = 5.0


@pytest.fixture
def session() -> WorkerSession:
    return WorkerSession("w0#1", JoinRequest(worker_name="w0"), "secret", last_message_s=100.0)


def status(session: WorkerSession, now_s: float = 100.0) -> SessionStatus:
    return session.state(now_s, HEARTBEAT_S)


def connect(session: WorkerSession) -> None:
    session.open_stream(100.0)
    session.has_connected = True


def test_a_worker_that_has_not_opened_a_stream_has_only_joined(session: WorkerSession) -> None:
    assert status(session, now_s=1000.0) is SessionStatus.JOINED


def test_a_connected_worker_is_active_until_two_heartbeats_are_missing(session: WorkerSession) -> None:
    connect(session)
    assert status(session, 100.0 + 2 * HEARTBEAT_S) is SessionStatus.ACTIVE
    assert status(session, 100.1 + 2 * HEARTBEAT_S) is SessionStatus.SUSPECT


def test_a_worker_whose_stream_broke_is_suspect_at_once(session: WorkerSession) -> None:
    connect(session)
    session.stream = None
    assert status(session) is SessionStatus.SUSPECT


def test_a_stuck_worker_is_active_again_after_progress(session: WorkerSession) -> None:
    connect(session)
    session.take_heartbeat(Heartbeat(progress=3, phase_age_s=900.0))
    session.stuck_at = 3
    session.take_heartbeat(Heartbeat(progress=3, phase_age_s=901.0))
    assert status(session) is SessionStatus.STUCK
    session.take_heartbeat(Heartbeat(progress=4, phase_age_s=902.0))
    assert status(session) is SessionStatus.ACTIVE


def test_silence_hides_every_other_status(session: WorkerSession) -> None:
    connect(session)
    session.draining, session.stuck_at = True, 3
    assert status(session, 200.0) is SessionStatus.SUSPECT
    assert status(session) is SessionStatus.STUCK
    session.stuck_at = None
    assert status(session) is SessionStatus.DRAINING
