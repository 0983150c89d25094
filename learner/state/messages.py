"""Constructors of the longer messages that the learner sends to workers."""

from learner.state.lanes import Lane
from learner.storage.thetas import Published
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import LearnerMessage


def theta(published: Published, inline_bytes: int) -> LearnerMessage:
    """Announce a theta; include its body if it has at most `inline_bytes`."""
    announcement = learner_pb2.ThetaAnnouncement(outer_step=published.outer_step, sha256=published.sha256)
    if len(published.body) <= inline_bytes:
        announcement.inline = published.body
    return LearnerMessage(theta=announcement)


def grant(lane: Lane, outer_step: int, *, exact: bool, credits_left: int) -> LearnerMessage:
    """Lease a lane to a worker, with the instructions for restoring its state."""
    snapshot = lane.newest_snapshot(lane.reached)
    snapshot_seq = snapshot.seq if snapshot else 0
    return LearnerMessage(
        grant=learner_pb2.LaneGrant(
            lane=lane.number,
            fencing_token=lane.fencing_token,
            seq=lane.reached,
            snapshot_seq=snapshot_seq,
            snapshot_sha256=snapshot.sha256 if snapshot else "",
            init_outer_step=0 if exact else outer_step,
            replay_outer_steps=range(snapshot_seq, lane.reached) if exact else (),
            credits=credits_left,
        )
    )


def revocation(lane: Lane, reason: str) -> LearnerMessage:
    """Ask a worker to return a lane."""
    return LearnerMessage(
        revocation=learner_pb2.LaneRevocation(
            lane=lane.number, fencing_token=lane.fencing_token, reason=reason
        )
    )
