import random
import threading
from collections.abc import Iterator

import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1 import learner_pb2
from tests.support.clock import Clock
from tests.support.patience import PATIENCE_S
from tests.workers.fake_learner import FakeLearner
from workers.session.client import UnavailableError
from workers.session.learner_session import LearnerSession, retry_delay_s
from workers.session.session_state import Joined, SessionState

HELD = learner_pb2.HeldLane(lane=1, fencing_token=2, seq=3)


def make_session(
    learner: FakeLearner, session_state: SessionState, *, step_s: float = 0.0, orphan_ttl_s: float = 60.0
) -> LearnerSession:
    return LearnerSession(
        learner,
        session_state,
        learner_pb2.JoinRequest(worker_name="w0", process_uuid="abc"),
        lambda: learner_pb2.Heartbeat(lanes=[HELD]),
        orphan_ttl_s=orphan_ttl_s,
        clock=Clock(0.0, step_s=step_s),
        draws=random.Random(0),
    )


@pytest.fixture
def learner() -> FakeLearner:
    return FakeLearner()


@pytest.fixture
def session_state() -> SessionState:
    return SessionState()


@pytest.fixture
def session(learner: FakeLearner, session_state: SessionState) -> Iterator[LearnerSession]:
    session = make_session(learner, session_state)
    yield session
    session.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.endswith("-w0")]


def next_joined(session_state: SessionState) -> Joined:
    while True:
        seen = session_state.revision
        for command in session_state.commands():
            assert isinstance(command, Joined)
            return command
        session_state.wait(seen, PATIENCE_S)


def push(lane: int = 0) -> learner_pb2.GradientEstimatorOut:
    return learner_pb2.GradientEstimatorOut(lane=lane, fencing_token=1, seq=1)


def test_a_stream_begins_with_a_heartbeat(session, learner):
    session.start()
    message = learner.next_message()
    assert message.heartbeat.lanes == [HELD]


def test_a_broken_stream_leads_to_another_join_that_names_the_held_lanes(session, learner, session_state):
    session.start()
    first = next_joined(session_state)
    learner.break_stream()
    second = next_joined(session_state)
    assert first.fresh
    assert not second.fresh
    assert second.held == {(1, 2)}
    assert [learner.joins.get().held[0].seq for _ in range(2)] == [3, 3]


@pytest.mark.parametrize("change", [{"term": 2}, {"session_id": "w0#2"}])
def test_no_lease_survives_another_learner_or_another_session(session, learner, session_state, change):
    session.start()
    next_joined(session_state)
    for name, value in change.items():
        setattr(learner.reply, name, value)
    learner.break_stream()
    assert next_joined(session_state).fresh


def test_an_outdated_learner_is_not_joined(session, learner, session_state):
    learner.reply.term = 3
    session.start()
    next_joined(session_state)
    learner.joins.get()
    learner.reply.term = 2
    learner.break_stream()
    learner.joins.get(timeout=PATIENCE_S)
    learner.joins.get(timeout=PATIENCE_S)  # it is asked again, as if it had not answered
    assert "outdated learner answered: its term is 2" in session.trouble
    learner.reply.term = 4
    assert next_joined(session_state).reply.term == 4


def test_terms_of_another_run_are_not_compared(session, learner, session_state):
    learner.reply.term = 3
    session.start()
    next_joined(session_state)
    learner.reply.run_id, learner.reply.term = "another", 1
    learner.break_stream()
    assert next_joined(session_state).reply.run_id == "another"


def test_a_question_for_the_stack_is_answered_beside_the_work(session, learner, session_state):
    session.start()
    next_joined(session_state)
    learner.send(stack_request=learner_pb2.StackRequest())
    dump = learner.next("stack").stack.text
    assert "_receive" in dump  # the thread that answers
    assert "test_a_question_for_the_stack" in dump


def test_a_push_without_a_final_verdict_is_sent_again_on_the_next_stream(session, learner, session_state):
    session.start()
    next_joined(session_state)
    session_state.push(push(), b"gradient")
    first = learner.next_push()
    learner.judge(first, learner_pb2.ACCEPTED)
    learner.break_stream()
    assert learner.next_push() == first


def test_a_large_body_travels_in_chunks(session, learner, session_state):
    learner.reply.chunk_bytes = 1024
    session.start()
    next_joined(session_state)
    session_state.push(push(), bytes(2500))
    header = learner.next_push()
    chunks = [learner.next("chunk").chunk for _ in range(3)]
    assert header.grad.WhichOneof("body") == "transfer"
    assert {chunk.transfer for chunk in chunks} == {header.grad.transfer}
    assert sum(len(chunk.data) for chunk in chunks) == 2500


def test_the_theta_of_an_earlier_session_is_void(session, learner, session_state):
    session.start()
    next_joined(session_state)
    learner.announce(9)
    learner.break_stream()
    next_joined(session_state)
    assert session_state.theta is None


def test_an_expired_session_joins_afresh(session, learner, session_state):
    session.start()
    next_joined(session_state)
    learner.close_all(learner_pb2.Goodbye.EXPIRED)
    assert next_joined(session_state).fresh


def test_an_unreachable_learner_is_tried_again(session, learner, session_state):
    for _ in range(3):
        learner.join_errors.put(UnavailableError("not reachable"))
    session.start()
    assert next_joined(session_state).reply.run_id == "run"


def test_a_worker_without_a_learner_is_orphaned_in_the_end(learner, session_state):
    learner.join = lambda request: (_ for _ in ()).throw(UnavailableError("not reachable"))
    session = make_session(learner, session_state, step_s=40.0)
    session.start()
    end = session_state.wait_for_end(PATIENCE_S)
    session.close()
    assert end is not None
    assert end.code is ExitCode.TEMPORARY
    assert "not reachable" in end.reason


def test_a_learner_that_acknowledges_no_heartbeat_is_joined_again(learner, session_state):
    learner.reply.heartbeat_s = 0.01
    session = make_session(learner, session_state, step_s=1.0)
    session.start()
    next_joined(session_state)
    assert not next_joined(session_state).fresh
    session.close()


def test_leaving_sends_what_is_queued_and_closes_the_stream(session, learner, session_state):
    session.start()
    next_joined(session_state)
    session_state.return_lane(learner_pb2.LaneReturn(lane=1, seq=3))
    assert session.leave("drained", PATIENCE_S)
    assert learner.next("lane_return").lane_return.seq == 3
    assert learner.next_message() is None
    assert learner.left == ["w0#1"]


def test_leaving_without_a_learner_takes_no_longer_than_it_may(session, learner):
    learner.join = lambda request: (_ for _ in ()).throw(UnavailableError("not reachable"))
    session.start()
    assert not session.leave("drained", timeout_s=0.01)


def test_delays_between_attempts_are_jittered_below_a_doubling_ceiling():
    draws = random.Random(1)
    delays_s = [retry_delay_s(attempt, draws) for attempt in range(2000)]
    assert all(delay_s <= min(2.0, 0.1 * 2 ** min(attempt, 9)) for attempt, delay_s in enumerate(delays_s))
    assert max(delays_s) > 1.9
    assert min(delays_s[10:]) < 0.1
