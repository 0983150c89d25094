import threading

import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import (
    Drain,
    GradientEstimatorOut,
    Heartbeat,
    HeartbeatAck,
    JoinReply,
    LaneGrant,
    LaneReturn,
    LearnerMessage,
    PushVerdict,
    ThetaAnnouncement,
)
from tests.support.patience import PATIENCE_S
from workers.exits import End
from workers.session.session_state import Joined, Rejected, SessionState, TooManyCommandsError


@pytest.fixture
def state() -> SessionState:
    state = SessionState()
    state.joined(Joined(JoinReply(chunk_bytes=4), frozenset(), fresh=True))
    state.commands()
    return state


def push(lane: int = 0, fencing_token: int = 7) -> GradientEstimatorOut:
    return GradientEstimatorOut(lane=lane, fencing_token=fencing_token)


def kinds(state: SessionState, count: int) -> list[str | None]:
    stream = state.new_stream(Heartbeat)
    return [next(stream).WhichOneof("body") for _ in range(count)]


def test_a_stream_starts_with_a_heartbeat_and_sends_bodies_in_chunks(state):
    state.push(push(), b"12345678")
    assert kinds(state, 4) == ["heartbeat", "push", "chunk", "chunk"]


def test_a_small_body_is_sent_within_its_message(state):
    state.push(push(), b"1234")
    state.return_lane(LaneReturn(lane=0))
    assert kinds(state, 3) == ["heartbeat", "push", "lane_return"]


def test_log_lines_and_failures_overtake_bodies(state):
    state.push(push(), b"12345678")
    state.log("info", "hello")
    state.report_failure(learner_pb2.LaneFailure(lane=0))
    assert kinds(state, 4) == ["heartbeat", "log", "lane_failure", "push"]


def test_a_newer_stream_ends_the_earlier_one(state):
    earlier = state.new_stream(Heartbeat)
    later = state.new_stream(Heartbeat)
    assert list(earlier) == []
    assert next(later).HasField("heartbeat")


def test_leaving_ends_the_stream_when_everything_is_sent(state):
    state.return_lane(LaneReturn(lane=0))
    stream = state.new_stream(Heartbeat)
    state.leave()
    assert not state.has_left
    assert [message.WhichOneof("body") for message in stream] == ["heartbeat", "lane_return"]
    assert state.has_left


def test_commands_are_taken_once_and_in_order(state):
    grant, drain = LaneGrant(lane=1, credits=3), Drain(reason="scaled down")
    state.receive(LearnerMessage(grant=grant))
    state.receive(LearnerMessage(drain=drain))
    assert list(state.commands()) == [grant, drain]
    assert list(state.commands()) == []
    assert state.free_credits == 3


def test_a_final_verdict_other_than_applied_becomes_a_command_with_the_pushs_lease(state):
    state.push(push(fencing_token=5), b"1234")
    kinds(state, 2)
    verdict = PushVerdict(push_id=1, verdict=learner_pb2.NOT_LEASED)
    state.receive(LearnerMessage(verdict=verdict))
    assert list(state.commands()) == [Rejected(verdict, fencing_token=5)]


@pytest.mark.parametrize("word", [learner_pb2.ACCEPTED, learner_pb2.APPLIED])
def test_a_push_that_was_taken_is_no_command(state, word):
    state.push(push(), b"1234")
    kinds(state, 2)
    state.receive(LearnerMessage(verdict=PushVerdict(push_id=1, verdict=word)))
    assert list(state.commands()) == []


def test_a_join_voids_the_theta_announced_before(state):
    state.receive(LearnerMessage(theta=ThetaAnnouncement(outer_step=3)))
    assert state.theta.outer_step == 3
    state.joined(Joined(JoinReply(), frozenset(), fresh=False))
    assert state.theta is None


def test_a_relays_state_queues_every_message_as_a_command_too():
    state = SessionState(forwards=True)
    message = LearnerMessage(heartbeat_ack=HeartbeatAck(credits=2))
    state.receive(message)
    assert list(state.commands()) == [message]


def test_more_commands_than_a_working_learner_sends_are_an_error(state):
    grant = LearnerMessage(grant=LaneGrant())
    for _ in range(65_536):
        state.receive(grant)
    with pytest.raises(TooManyCommandsError):
        state.receive(grant)


def test_the_first_end_of_a_session_is_kept(state):
    first = End(ExitCode.REFUSED, "no such token")
    state.finish(first)
    state.finish(End(ExitCode.OK, "closed"))
    assert state.wait_for_end(0.0) == first


def test_a_waiting_worker_wakes_at_any_change(state):
    seen = state.revision
    waiting = threading.Thread(target=state.wait, args=(seen,))
    waiting.start()
    state.wake()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
    state.wait(seen)  # returns at once, because there has been a change since
