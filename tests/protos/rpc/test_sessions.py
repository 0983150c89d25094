import pytest

from protos.rpc.sessions import Session, SessionTable
from protos.unspool.v1.learner_pb2 import Drain, Heartbeat, HeldLane, JoinRequest, LearnerMessage

MESSAGE = LearnerMessage(drain=Drain(reason="scaled down"))


@pytest.fixture
def table() -> SessionTable[Session]:
    return SessionTable(Session)


@pytest.fixture
def session(table: SessionTable[Session]) -> Session:
    return table.open(JoinRequest(worker_name="w0"), 10.0)


def test_every_session_has_an_id_and_a_secret_of_its_own(table: SessionTable[Session]) -> None:
    first, second = (table.open(JoinRequest(worker_name="w0"), 10.0) for _ in range(2))
    assert first.session_id != second.session_id
    assert first.secret != second.secret
    assert list(table) == [first, second]


def test_ids_are_not_reused_after_all_sessions_are_removed(
    table: SessionTable[Session], session: Session
) -> None:
    table.clear()
    assert len(table) == 0
    assert table.open(JoinRequest(worker_name="w0"), 10.0).session_id != session.session_id


def test_a_session_is_found_by_id_name_and_secret_until_it_is_closed(
    table: SessionTable[Session], session: Session
) -> None:
    finds = (
        lambda: table.get(session.session_id),
        lambda: table.named("w0"),
        lambda: table.with_secret(session.secret),
    )
    assert [find() for find in finds] == [session] * 3
    table.close(session)
    assert [find() for find in finds] == [None] * 3


@pytest.mark.parametrize("secret", ["", "wrong", "nicht-ascii-ü"])
def test_a_wrong_secret_finds_no_session(table: SessionTable[Session], session: Session, secret: str) -> None:
    assert table.with_secret(secret) is None


def test_a_rejoin_replaces_the_secret(table: SessionTable[Session], session: Session) -> None:
    before = session.secret
    session.rejoin(JoinRequest(worker_name="w0", pid=7), 20.0)
    assert table.with_secret(before) is None
    assert table.with_secret(session.secret) is session
    assert (session.join_request.pid, session.last_message_s) == (7, 20.0)


def test_a_new_stream_ends_the_earlier_one(session: Session) -> None:
    earlier = session.open_stream(11.0)
    later = session.open_stream(12.0)
    session.send(MESSAGE)
    later.close()
    assert (list(earlier), list(later)) == ([], [MESSAGE])
    assert session.last_message_s == 12.0


def test_a_message_without_a_stream_is_dropped(session: Session) -> None:
    session.send(MESSAGE)
    stream = session.open_stream(11.0)
    stream.close()
    assert list(stream) == []


def test_a_session_is_silent_after_two_heartbeats(session: Session) -> None:
    assert not session.is_silent(20.0, heartbeat_s=5.0)
    assert session.is_silent(20.1, heartbeat_s=5.0)


def test_a_stuck_session_is_freed_by_progress_only(session: Session) -> None:
    session.take_heartbeat(Heartbeat(progress=3, phase_age_s=61.0))
    session.stuck_at = 3
    session.take_heartbeat(Heartbeat(progress=3, phase_age_s=62.0))
    assert session.stuck_at == 3
    session.take_heartbeat(Heartbeat(progress=4, phase_age_s=63.0))
    assert session.stuck_at is None


@pytest.mark.parametrize(
    ("is_relay", "workers", "is_empty"), [(True, 0, True), (True, 2, False), (False, 0, False)]
)
def test_only_a_relay_without_workers_is_an_empty_relay(
    table: SessionTable[Session], is_relay: bool, workers: int, is_empty: bool
) -> None:
    session = table.open(JoinRequest(worker_name="relay", relay=is_relay), 0.0)
    session.take_heartbeat(Heartbeat(workers=workers))
    assert session.is_empty_relay is is_empty


def test_the_lanes_that_a_worker_names_replace_those_before(session: Session) -> None:
    session.note_held([HeldLane(lane=1, seq=5)])
    session.note_held([HeldLane(lane=2, seq=6)])
    assert session.held == {2: HeldLane(lane=2, seq=6)}
