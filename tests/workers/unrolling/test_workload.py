"""A workload after a push was rejected: which theta and which state its next estimate uses."""

from protos.unspool.v1 import learner_pb2
from tests.workers.fake_learner import FakeLearner


def test_the_next_estimate_is_made_with_the_newest_theta(start):
    learner = FakeLearner(exact=False)
    start(learner)
    learner.announce(1)
    learner.grant(0, credits=1)
    push = learner.next_push()
    learner.announce(8)
    learner.judge(push, learner_pb2.STALE, outer_step=8)
    again = learner.next_push()
    assert (again.seq, again.outer_step) == (2, 8)


def test_no_estimate_is_made_with_a_theta_older_than_the_verdict(start):
    learner = FakeLearner(exact=False)
    start(learner)
    learner.announce(1)
    learner.grant(0, credits=1)
    # No announcement of 8 follows, because that of 9 replaced it.
    learner.judge(learner.next_push(), learner_pb2.STALE, outer_step=8)
    learner.send(heartbeat_ack=learner_pb2.HeartbeatAck(credits=9))
    learner.announce(9)
    assert learner.next_push().outer_step == 9


def test_a_learner_that_restarted_at_an_earlier_outer_step_is_followed_at_once(start):
    learner = FakeLearner(exact=False)
    start(learner)
    learner.announce(8)
    learner.grant(0, credits=1)
    learner.judge(learner.next_push(), learner_pb2.STALE, outer_step=12)
    learner.reply.term = 2
    learner.break_stream()
    learner.announce(3)
    learner.grant(0, fencing_token=9)
    assert learner.next_push().outer_step == 3


def test_a_state_that_the_learner_does_not_want_is_discarded(start):
    learner = FakeLearner(exact=False)
    start(learner)
    learner.announce(0)
    learner.grant(0, fencing_token=1, credits=1)
    learner.judge(learner.next_push(), learner_pb2.NOT_LEASED, credits=0)
    again = learner_pb2.LaneGrant(lane=0, fencing_token=5, seq=1, credits=1, discard_held=True)
    learner.send(grant=again)
    fresh, other = learner.next_push(), FakeLearner(exact=False)
    start(other, host="another")
    other.announce(0)
    other.grant(0, fencing_token=5, seq=1, credits=1)
    assert fresh.grad.inline == other.next_push().grad.inline
