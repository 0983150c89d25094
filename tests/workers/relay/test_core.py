"""The relay's core between a learner and workers, both acted by the test."""

import grpc
import numpy as np
import pytest

from protos import codec
from protos.rpc.session_host import JoinDeniedError
from protos.unspool.v1 import learner_pb2
from tests.workers.relay.relay_node import TTL_S, RelayNode, body

Verdict = learner_pb2.Verdict
Goodbye = learner_pb2.Goodbye


def test_a_grant_goes_to_the_least_loaded_worker():
    node = RelayNode()
    w0, w1 = node.worker("w0"), node.worker("w1")
    for lane in range(3):
        node.grant(lane)
    assert [grant.lane for grant in w0.received("grant")] == [0, 2]
    assert [grant.lane for grant in w1.received("grant")] == [1]


def test_a_grant_goes_to_a_worker_that_still_has_the_state():
    node = RelayNode()
    node.worker("w0")
    w1 = node.worker("w1", held=[learner_pb2.HeldLane(lane=5, fencing_token=1, seq=3)])
    node.grant(5, seq=3)
    assert [grant.lane for grant in w1.received("grant")] == [5]


def test_a_grant_waits_for_a_worker_and_goes_back_if_none_comes():
    node = RelayNode()
    node.grant(0)
    node.pass_time(11.0)
    assert node.sent("lane_return").lane == 0


def test_without_merging_a_push_passes_unchanged():
    node = RelayNode()
    w0 = node.worker("w0")
    sent = w0.push(node.grant(2), 1, body(1, 2, 3, 4), mean_loss=0.5, outer_step=0)
    passed = node.sent("push")
    assert passed.grad == sent.grad
    assert (passed.lane, passed.fencing_token, passed.seq, passed.mean_loss) == (2, 7, 1, 0.5)
    assert not passed.parts


def test_a_verdict_reaches_the_sender_under_its_own_push_id():
    node = RelayNode()
    w0, w1 = node.worker("w0"), node.worker("w1")
    grants = [node.grant(0), node.grant(1)]
    w0.push(grants[0], 1, body(1), push_id=41)
    w1.push(grants[1], 1, body(2), push_id=41)
    node.sent("push")
    node.judge(node.sent("push"), Verdict.APPLIED)
    assert [(verdict.push_id, verdict.lane) for verdict in w1.received("verdict")] == [(41, 1)]
    assert not w0.received("verdict")


def test_pushes_that_come_before_the_learners_answer_go_up_as_one():
    node = RelayNode(merges=True)
    w0, w1 = node.worker("w0"), node.worker("w1")
    grants = [node.grant(lane) for lane in range(2)]
    w0.push(grants[0], 1, body(9), outer_step=2)
    w1.push(grants[1], 1, body(1, 2, 3, 4), weight=1.0, outer_step=2, mean_loss=1.0)
    w0.push(grants[0], 2, body(5, 6, 7, 8), weight=3.0, outer_step=1, mean_loss=2.0)
    first = node.sent("push")
    node.judge(first, Verdict.ACCEPTED)
    merged = node.sent("push")
    assert not first.parts
    assert np.frombuffer(merged.grad.inline, np.float32).tolist() == [4, 5, 6, 7]
    assert (merged.weight, merged.mean_loss, merged.outer_step) == (4.0, 1.75, 1)
    assert [(part.lane, part.seq, part.weight) for part in merged.parts] == [(1, 1, 1.0), (0, 2, 3.0)]


def merged_push(node: RelayNode, workers: list) -> learner_pb2.GradientEstimatorOut:
    """One push for each of three lanes, of which the last two go up merged."""
    for lane, worker in enumerate(workers):
        worker.push(node.grant(lane), 1, body(lane))
    node.judge(node.sent("push"), Verdict.ACCEPTED)
    return node.sent("push")


def test_parts_that_are_objected_to_are_dropped_and_the_rest_is_sent_again():
    node = RelayNode(merges=True)
    workers = [node.worker(f"w{lane}") for lane in range(3)]
    push = merged_push(node, workers)
    for worker in workers:
        worker.received("verdict")
    rejection = learner_pb2.PartVerdict(lane=1, seq=1, verdict=Verdict.STALE)
    node.judge(push, Verdict.STALE, parts=[rejection])
    again = node.sent("push")
    assert (again.lane, again.grad.inline, list(again.parts)) == (2, body(2), [])
    assert [verdict.verdict for verdict in workers[1].received("verdict")] == [Verdict.STALE]
    assert not workers[2].received("verdict")


def test_a_word_on_a_merged_push_as_a_whole_reaches_every_sender():
    node = RelayNode(merges=True)
    workers = [node.worker(f"w{lane}") for lane in range(3)]
    push = merged_push(node, workers)
    for worker in workers:
        worker.received("verdict")
    node.judge(push, Verdict.ACCEPTED)
    node.judge(push, Verdict.APPLIED)
    received = [[verdict.verdict for verdict in worker.received("verdict")] for worker in workers]
    assert received == [[], *[[Verdict.ACCEPTED, Verdict.APPLIED]] * 2]


def test_a_gradient_that_is_not_finite_is_part_of_no_mean():
    node = RelayNode(merges=True)
    workers = [node.worker(f"w{lane}") for lane in range(3)]
    grants = [node.grant(lane) for lane in range(3)]
    for worker, grant, value in zip(workers, grants, (1.0, float("nan"), 3.0), strict=True):
        worker.push(grant, 1, body(value))
    for lane in range(3):
        push = node.sent("push")
        assert (push.lane, list(push.parts)) == (lane, [])
        node.judge(push, Verdict.ACCEPTED)


def test_a_push_that_is_sent_again_is_passed_on_once():
    node = RelayNode()
    w0 = node.worker("w0")
    grant = node.grant(0)
    w0.push(grant, 1, body(1), push_id=5)
    node.judge(node.sent("push"), Verdict.ACCEPTED)
    w0.received("verdict")
    w0.push(grant, 1, body(1), push_id=5)
    assert [verdict.verdict for verdict in w0.received("verdict")] == [Verdict.ACCEPTED]
    w0.send("lane_return", learner_pb2.LaneReturn(lane=0, fencing_token=7, seq=1))
    node.sent("lane_return")


def test_a_push_under_another_lease_is_refused_here():
    node = RelayNode()
    w0 = node.worker("w0")
    node.grant(0, fencing_token=7)
    w0.push(learner_pb2.LaneGrant(lane=0, fencing_token=6), 1, body(1))
    assert [verdict.verdict for verdict in w0.received("verdict")] == [Verdict.NOT_LEASED]


@pytest.mark.parametrize(
    ("data", "crc32", "verdict"),
    [
        (body(1), 0, Verdict.CORRUPT),
        (b"short", None, Verdict.SCHEMA_MISMATCH),
        (body(1) * 2, None, Verdict.TOO_LARGE),
    ],
)
def test_a_body_that_is_not_the_schemas_is_refused_here(data, crc32, verdict):
    node = RelayNode()
    w0 = node.worker("w0")
    tensors = codec.tensors(data, 1, 1 << 16)
    tensors.crc32 = tensors.crc32 if crc32 is None else crc32
    push = learner_pb2.GradientEstimatorOut(push_id=1, lane=0, fencing_token=7, seq=1, grad=tensors)
    node.grant(0)
    node.core.push(w0.session_id, push, data)
    assert [answer.verdict for answer in w0.received("verdict")] == [verdict]


def test_a_worker_receives_its_share_of_the_learners_credits():
    node = RelayNode()
    w0, w1 = node.worker("w0"), node.worker("w1")
    grants = [node.grant(lane, credits=2 * (lane + 1)) for lane in range(3)]  # two for each lane
    w0.push(grants[0], 1, body(1))
    node.judge(node.sent("push"), Verdict.ACCEPTED, credits=5)
    for worker in (w0, w1):
        worker.received("verdict")
        worker.beat()
    assert [ack.credits for worker in (w0, w1) for ack in worker.received("heartbeat_ack")] == [3, 2]


def test_what_one_worker_may_leave_here_is_bounded():
    node = RelayNode()
    w0 = node.worker("w0")
    grant = node.grant(0, credits=1)
    for seq in range(1, 5):
        w0.push(grant, seq, body(seq))
    assert [verdict.verdict for verdict in w0.received("verdict")] == [Verdict.NO_CREDIT] * 2


def test_lanes_of_a_worker_that_stays_silent_go_back_after_its_pushes():
    node = RelayNode(merges=True)
    w0 = node.worker("w0")
    grants = [node.grant(0), node.grant(1)]
    w0.push(grants[0], 1, body(1))
    w0.push(grants[1], 4, body(2))
    w0.break_stream()
    node.pass_time(TTL_S - 1.0)
    node.pass_time(2.0)
    assert [node.sent("push").lane for _ in range(2)] == [0, 1]
    assert [(gone.lane, gone.seq) for gone in (node.sent("lane_return"), node.sent("lane_return"))] == [
        (0, 1), (1, 4),
    ]  # fmt: skip


def test_a_new_process_of_a_worker_frees_the_lanes_of_the_old_one_at_once():
    node = RelayNode()
    before = node.worker("w0", "i0")
    node.grant(3)
    node.worker("w0", "i1")
    assert node.sent("lane_return").lane == 3
    assert [goodbye.reason for goodbye in before.received("goodbye")] == [Goodbye.SUPERSEDED]


def test_a_relay_reports_that_it_is_empty_before_it_returns_its_lanes():
    node = RelayNode()
    w0 = node.worker("w0")
    node.grant(0)
    node.core.leave(learner_pb2.LeaveRequest(session_id=w0.session_id, reason="drained"))
    heartbeats, message = [], None
    while message is None or not message.HasField("lane_return"):
        message = node._stream.messages.get(timeout=5.0)
        heartbeats += [message.heartbeat.workers] * message.HasField("heartbeat")
    assert heartbeats[-1] == 0


def test_a_worker_that_joins_again_keeps_the_leases_that_it_names():
    node = RelayNode()
    w0 = node.worker("w0")
    node.grant(0)
    node.grant(1)
    w0.break_stream()
    node.worker("w0", held=[learner_pb2.HeldLane(lane=0, fencing_token=7, seq=0)])
    assert node.sent("lane_return").lane == 1
    assert [lane.lane for lane in node.core.report().lanes] == [0]


def test_a_broken_stream_to_the_learner_leaves_workers_alone():
    node = RelayNode()
    w0 = node.worker("w0")
    push = w0.push(node.grant(0), 1, body(1))
    node.sent("push")
    node.join(fresh=False, held=frozenset({(0, 7)}))
    assert node.sent("push").grad == push.grad
    assert not w0.received("goodbye")


def test_a_lease_that_did_not_survive_is_taken_from_its_worker():
    node = RelayNode()
    w0 = node.worker("w0")
    node.grant(0)
    node.join(fresh=False, held=frozenset())
    assert [(lost.lane, lost.fencing_token) for lost in w0.received("revocation")] == [(0, 7)]


def test_after_a_restart_of_the_learner_lanes_go_to_workers_that_still_have_their_states():
    node = RelayNode()
    node.worker("w0")
    w1 = node.worker("w1")
    node.reply.term = 2
    node.join(fresh=True)
    assert [goodbye.reason for goodbye in w1.received("goodbye")] == [Goodbye.EXPIRED]
    node.worker("w0")
    node.grant(4, fencing_token=8, seq=6)
    again = node.worker("w1", held=[learner_pb2.HeldLane(lane=4, fencing_token=7, seq=6)])
    assert [grant.lane for grant in again.received("grant")] == [4]


def test_a_new_worker_is_given_lanes_of_the_others():
    node = RelayNode()
    w0 = node.worker("w0")
    for lane in range(2):
        node.grant(lane)
    node.worker("w1")
    node.pass_time(0.1)
    (revocation,) = w0.received("revocation")
    w0.send(
        "lane_return", learner_pb2.LaneReturn(lane=revocation.lane, fencing_token=7, seq=3, reason="moved")
    )
    assert node.sent("lane_return").seq == 3


def test_a_worker_that_hangs_loses_its_lanes_and_is_asked_for_its_stack():
    node = RelayNode()
    w0, w1 = node.worker("w0"), node.worker("w1")
    node.grant(0)
    w0.push(learner_pb2.LaneGrant(lane=0, fencing_token=7), 1, body(1), compute_s=1.0)
    node.sent("push")
    w0.beat(phase=learner_pb2.Heartbeat.COMPUTING, phase_age_s=61.0)
    w1.beat(phase=learner_pb2.Heartbeat.COMPUTING, phase_age_s=2.0)
    node.pass_time(0.1)
    assert "w0 has not progressed" in node.sent("log").text
    assert node.sent("lane_return").lane == 0
    assert len(w0.received("stack_request")) == 1
    assert node.core.report().phase_age_s == 2.0


def test_a_snapshot_passes_only_under_the_lanes_lease():
    node = RelayNode()
    w0 = node.worker("w0")
    node.grant(0)
    for fencing_token, data in ((6, b"old"), (7, b"new")):
        snapshot = learner_pb2.Snapshot(lane=0, fencing_token=fencing_token, seq=1, transfer=4, bytes=3)
        incoming = node.core.receive_snapshot(w0.session_id, snapshot)
        assert (incoming is not None) == (fencing_token == 7)
        for chunk in codec.chunks(data, 4, 2) if incoming is not None else ():
            incoming.add(chunk)
    assert node.sent("snapshot").fencing_token == 7
    assert node.sent("chunk").data == b"new"


def test_a_revocation_reaches_the_worker_that_has_the_lane():
    node = RelayNode()
    w0, w1 = node.worker("w0"), node.worker("w1")
    for lane in range(2):
        node.grant(lane)
    node.receive(revocation=learner_pb2.LaneRevocation(lane=1, fencing_token=7))
    assert [revocation.lane for revocation in w1.received("revocation")] == [1]
    assert not w0.received("revocation")


def test_failures_stacks_and_log_lines_name_their_worker():
    node = RelayNode()
    w0 = node.worker("w0")
    node.grant(0)
    failure = learner_pb2.LaneFailure(lane=0, fencing_token=7, seq=1, traceback="boom")
    for kind, message in (
        ("lane_failure", failure),
        ("stack", learner_pb2.StackDump(text="main")),
        ("log", learner_pb2.LogLine(level="info", text="hello")),
    ):
        w0.send(kind, message)
    assert node.sent("lane_failure") == failure
    assert node.sent("stack").text == "w0:\nmain"
    assert node.sent("log").text == "w0: hello"


@pytest.mark.parametrize(
    ("changes", "is_passing"),
    [
        ({"run_id": "another"}, False),
        ({"protocol_min": 2, "protocol_max": 2}, False),
        ({"worker_name": ""}, False),
        ({"worker_name": "w9"}, True),
    ],
)
def test_a_worker_that_does_not_fit_is_refused(changes, is_passing):
    node = RelayNode(max_workers=1)
    node.worker("w0")
    fields = {"protocol_min": 1, "protocol_max": 1, "worker_name": "w0", "process_uuid": "i0"}
    with pytest.raises(JoinDeniedError) as refusal:
        node.core.join(learner_pb2.JoinRequest(**(fields | changes)))
    assert (refusal.value.status is grpc.StatusCode.UNAVAILABLE) == is_passing


def test_a_draining_relay_admits_no_worker_and_drains_its_own():
    node = RelayNode()
    w0 = node.worker("w0")
    node.core.drain(learner_pb2.Drain(reason="SIGTERM"))
    assert [drain.reason for drain in w0.received("drain")] == ["SIGTERM"]
    with pytest.raises(JoinDeniedError, match="draining"):
        node.worker("w1")
