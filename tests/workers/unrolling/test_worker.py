import queue

import pytest

from protos.exit_codes import ExitCode, RefusedError
from protos.unspool.v1 import learner_pb2
from tests.workers.fake_learner import EXPERIMENT, FakeLearner
from workers.session.client import UnavailableError
from workers.unrolling.unroller import Unroller
from workers.unrolling.worker import UnrollWorker

Verdict = learner_pb2.Verdict


def raise_overflow(*_: object) -> None:
    raise OverflowError("too large")


class DrainsAt(list):
    """Drains a worker when it has fetched so many thetas."""

    def __init__(self, worker: UnrollWorker, length: int) -> None:
        self._worker = worker
        self._length = length

    def append(self, outer_step: int) -> None:
        super().append(outer_step)
        if len(self) == self._length:
            self._worker.drain("SIGTERM")


def test_a_granted_lane_is_estimated_with_the_announced_theta(start):
    learner = FakeLearner()
    start(learner)
    learner.announce(0)
    learner.grant(2, fencing_token=5)
    push = learner.next_push()
    assert (push.lane, push.fencing_token, push.seq, push.outer_step) == (2, 5, 1, 0)
    assert len(push.grad.inline) == len(learner.theta_body(0))
    assert push.weight > 0
    assert push.unroll_info.inner_steps > 0


def test_in_sync_every_estimate_has_a_theta_of_its_own(start):
    learner = FakeLearner()
    start(learner)
    learner.grant(0)
    learner.grant(1)
    pushes = []
    for outer_step in range(3):
        learner.announce(outer_step)
        pushes += [learner.next_push(), learner.next_push()]
    assert [(push.lane, push.seq, push.outer_step) for push in pushes] == [
        (0, 1, 0), (1, 1, 0), (0, 2, 1), (1, 2, 1), (0, 3, 2), (1, 3, 2),
    ]  # fmt: skip


def test_in_async_a_lane_continues_while_there_are_credits(start):
    learner = FakeLearner(exact=False)
    start(learner)
    learner.announce(3)
    learner.grant(0, credits=2)
    first, second = learner.next_push(), learner.next_push()
    learner.announce(5)
    learner.judge(first, Verdict.ACCEPTED, credits=1)
    learner.judge(second, Verdict.ACCEPTED, credits=1)
    third = learner.next_push()
    assert [push.seq for push in (first, second, third)] == [1, 2, 3]
    assert (second.outer_step, third.outer_step) == (3, 5)


def test_a_theta_that_is_not_inline_is_fetched(start):
    learner = FakeLearner()
    learner.fetch_errors.put(UnavailableError("try again"))
    start(learner)
    learner.announce(0, inline=False)
    learner.grant(0)
    assert learner.next_push().seq == 1
    assert 0 in learner.fetched


def test_a_lane_restored_from_its_snapshot_makes_the_same_bits(start):
    learner = FakeLearner(snapshot_every=2)
    start(learner)
    learner.grant(3)
    pushes = {}
    for outer_step in range(6):
        learner.announce(outer_step)
        push = learner.next_push()
        pushes[push.seq] = push
        if push.seq % 2 == 0:
            assert learner.next_snapshot().seq == push.seq
    restored = FakeLearner(snapshot_every=2)
    restored.snapshots = learner.snapshots
    start(restored, host="another")
    restored.announce(5)
    restored.grant(3, fencing_token=2, seq=5, snapshot_seq=2)
    again = restored.next_push()
    assert restored.fetched == [2, 3, 4]
    assert (again.seq, again.fencing_token) == (6, 2)
    assert again.grad.inline == pushes[6].grad.inline


def test_a_lane_without_a_snapshot_is_replayed_from_its_beginning(start):
    learner = FakeLearner()
    start(learner)
    learner.grant(0)
    for outer_step in range(3):
        learner.announce(outer_step)
        push = learner.next_push()
    again = FakeLearner()
    start(again)
    again.announce(2)
    again.grant(0, seq=2)
    assert again.next_push().grad.inline == push.grad.inline
    assert again.fetched == [0, 0, 1]  # the theta of the lane's initial state, and those of the replay


def test_a_revoked_lane_comes_back_with_its_snapshot(start):
    learner = FakeLearner()
    start(learner)
    learner.announce(0)
    learner.grant(1, fencing_token=4)
    learner.next_push()
    learner.revoke(1, fencing_token=4)
    assert learner.next_snapshot().seq == 1
    returned = learner.next("lane_return").lane_return
    assert (returned.lane, returned.fencing_token, returned.seq) == (1, 4, 1)


def test_a_revocation_of_an_earlier_lease_is_ignored(start):
    learner = FakeLearner()
    start(learner)
    learner.announce(0)
    learner.grant(1, fencing_token=4)
    learner.revoke(1, fencing_token=3)
    assert learner.next_push().fencing_token == 4
    learner.announce(1)
    assert learner.next_push().seq == 2


def test_a_lane_that_was_snapshotted_at_its_seq_is_returned_without_another(start):
    learner = FakeLearner(snapshot_every=1)
    start(learner)
    learner.announce(0)
    learner.grant(0)
    learner.next_push()
    learner.next_snapshot()
    learner.revoke(0)
    assert learner.next("lane_return").lane_return.seq == 1


def test_a_drained_worker_returns_its_lanes_and_leaves(start):
    learner = FakeLearner()
    running = start(learner)
    learner.announce(0)
    learner.grant(0)
    learner.grant(1)
    learner.next_push()
    learner.next_push()
    learner.send(drain=learner_pb2.Drain(reason="scaled down", deadline_s=30.0))
    learner.next_snapshot()
    assert learner.next("lane_return").lane_return.reason == "scaled down"
    learner.next_snapshot()
    learner.next("lane_return")
    assert running.exit_code() == ExitCode.OK
    assert learner.left == ["w0#1"]


def test_a_worker_that_is_drained_before_the_learner_answers_ends_at_once(start):
    learner = FakeLearner()
    learner.join = lambda request: (_ for _ in ()).throw(UnavailableError("not there"))
    running = start(learner)
    running.worker.drain("SIGTERM")
    assert running.exit_code() == ExitCode.OK


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (learner_pb2.Goodbye.FINISHED, ExitCode.OK),
        (learner_pb2.Goodbye.STOPPED, ExitCode.OK),
        (learner_pb2.Goodbye.SUPERSEDED, ExitCode.REFUSED),
        (learner_pb2.Goodbye.FAILED, ExitCode.REFUSED),
    ],
)
def test_the_learners_goodbye_decides_the_exit_code(start, reason, code):
    learner = FakeLearner()
    running = start(learner)
    learner.close_all(reason)
    assert running.exit_code() == code


def test_a_refused_worker_does_not_try_again(start):
    learner = FakeLearner()
    learner.join_errors.put(RefusedError("UNAUTHENTICATED: no such token"))
    assert start(learner).exit_code() == ExitCode.REFUSED
    assert learner.joins.empty()


def test_another_theta_than_the_learners_is_refused_with_the_leaf_that_differs(start):
    learner = FakeLearner()
    learner.reply.schema.leaves[0].shape.append(7)
    learner.reply.schema.sha256 = "another"
    running = start(learner)
    assert "learning_rate" in learner.next("log").log.text or "lr" in learner.reply.schema.leaves[0].path
    assert running.exit_code() == ExitCode.REFUSED


def test_an_experiment_that_cannot_be_built_here_is_refused(start):
    learner = FakeLearner()
    learner.reply.experiment_toml = EXPERIMENT.replace("LearnableSGD", "elsewhere.module:Optimizer")
    running = start(learner)
    assert "elsewhere" in learner.next("log").log.text
    assert running.exit_code() == ExitCode.REFUSED


def test_a_crash_sends_its_traceback_to_the_learner(start):
    learner = FakeLearner()
    learner.snapshots[0, 2] = b"no safetensors file"
    running = start(learner)
    learner.grant(0, fencing_token=4, seq=2, snapshot_seq=2)
    failure = learner.next("lane_failure").lane_failure
    assert (failure.lane, failure.fencing_token, failure.seq) == (0, 4, 3)
    assert "its header is cut off (lane.py:" in failure.traceback.splitlines()[-1]
    line = learner.next("log").log
    assert line.level == "error"
    assert "Traceback" in line.text
    assert "SnapshotError" in line.text
    assert running.exit_code() == ExitCode.FAILED


def test_an_estimate_that_raises_names_its_lane_and_ends_the_worker(start, monkeypatch):
    monkeypatch.setattr(Unroller, "estimate", raise_overflow)
    learner = FakeLearner()
    running = start(learner)
    learner.announce(0)
    learner.grant(2, fencing_token=5)
    failure = learner.next("lane_failure").lane_failure
    assert (failure.lane, failure.fencing_token, failure.seq) == (2, 5, 1)
    words = "OverflowError: too large (test_worker.py:16 in raise_overflow)"
    assert failure.traceback.endswith(f"\n{words}")
    assert (failure.report.type, failure.report.line) == ("OverflowError", 16)
    assert running.exit_code() == ExitCode.FAILED


def test_a_learner_that_does_not_answer_is_no_lanes_fault(start):
    learner = FakeLearner()
    learner.fetch_errors.put(UnavailableError("try again"))
    start(learner)
    learner.announce(0, inline=False)
    learner.grant(0)
    learner.next("push")  # fails on a lane_failure before it


def test_an_evicted_worker_ends_with_a_code_of_its_own(start):
    learner = FakeLearner()
    running = start(learner)
    learner.close_all(learner_pb2.Goodbye.EVICTED)
    assert running.exit_code() == ExitCode.EVICTED


def test_a_snapshot_with_another_digest_than_granted_is_not_used(start):
    learner = FakeLearner()
    running = start(learner)
    grant = learner_pb2.LaneGrant(lane=0, fencing_token=1, seq=2, snapshot_seq=2, snapshot_sha256="0" * 64)
    learner.snapshots[0, 2] = b"other bytes"
    learner.send(grant=grant)
    assert "sha256" in learner.next("lane_failure").lane_failure.traceback
    assert running.exit_code() == ExitCode.FAILED


def test_a_lane_whose_snapshot_is_gone_is_returned_as_it_was_granted(start):
    learner = FakeLearner()
    start(learner)
    learner.grant(0, fencing_token=3, seq=5, snapshot_seq=4)
    returned = learner.next("lane_return").lane_return
    assert (returned.lane, returned.fencing_token, returned.seq) == (0, 3, 5)
    assert "NOT_FOUND" in returned.reason


def test_a_lane_whose_replay_lacks_a_theta_is_returned_as_it_was_granted(start):
    learner = FakeLearner()
    start(learner)
    learner.announce(0)  # the theta of the lane's initial state; the replay fetches it by its outer step
    learner.fetch_errors.put(RefusedError("NOT_FOUND: theta 0"))
    learner.grant(0, seq=2)
    returned = learner.next("lane_return").lane_return
    assert (returned.seq, learner.snapshots) == (2, {})


def test_a_drain_does_not_wait_for_a_replay_to_end(start):
    learner = FakeLearner()
    running = start(learner)
    learner.announce(0)
    learner.fetched = DrainsAt(running.worker, length=3)
    learner.grant(0, seq=50)
    assert learner.next("lane_return").lane_return.seq == 50
    assert running.exit_code() == ExitCode.OK
    assert len(learner.fetched) < 50


def test_a_worker_waits_where_the_learner_has_no_credit_for_it(start):
    learner = FakeLearner(exact=False)
    start(learner)
    learner.announce(0)
    learner.grant(0, credits=1)
    push = learner.next_push()
    learner.judge(push, Verdict.NO_CREDIT, credits=0)
    learner.send(heartbeat_ack=learner_pb2.HeartbeatAck(credits=1))
    assert learner.next_push().push_id == push.push_id


def test_a_lane_whose_lease_is_lost_is_not_pushed_for_until_it_is_granted_again(start):
    learner = FakeLearner()
    start(learner)
    learner.announce(0)
    learner.grant(0, fencing_token=1)
    learner.judge(learner.next_push(), Verdict.NOT_LEASED)
    learner.announce(1)
    learner.grant(0, fencing_token=3, seq=1)
    push = learner.next_push()
    assert (push.fencing_token, push.seq) == (3, 2)
    assert learner.fetched == []  # the state was here still


def test_in_sync_a_push_for_another_version_than_the_learners_ends_the_worker(start):
    learner = FakeLearner()
    running = start(learner)
    learner.announce(0)
    learner.grant(0)
    learner.judge(learner.next_push(), Verdict.FUTURE)
    assert "LaneConflictError" in learner.next("log").log.text
    assert running.exit_code() == ExitCode.FAILED


def test_stack_names_what_the_worker_is_doing(start):
    learner = FakeLearner()
    running = start(learner)
    assert learner.joins.get(timeout=60).worker_name == "w0"
    assert "worker.py" in running.worker.stack()


def test_a_duplicate_is_settled(start):
    learner = FakeLearner()
    start(learner)
    learner.announce(0)
    learner.grant(0)
    learner.judge(learner.next_push(), Verdict.DUPLICATE)
    learner.break_stream()
    learner.announce(1)
    assert learner.next_push().seq == 2
    with pytest.raises(queue.Empty):
        learner.stream.messages.get_nowait()
