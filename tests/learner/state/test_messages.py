"""Messages to workers: what a lease says about restoring a lane, and when a theta is included."""

import pytest

from learner.state import messages
from learner.state.lanes import Lane
from learner.storage.snapshots import SnapshotRef
from learner.storage.thetas import Published


@pytest.mark.parametrize(("inline_bytes", "body"), [(4, b"body"), (3, b"")])
def test_a_theta_is_included_if_it_fits(inline_bytes: int, body: bytes) -> None:
    announcement = messages.theta(Published.of(7, b"body"), inline_bytes).theta
    assert (announcement.outer_step, announcement.inline) == (7, body)
    assert announcement.sha256 == Published.of(7, b"body").sha256


def test_in_exact_steps_a_lane_is_restored_by_a_replay_of_every_estimate_after_its_snapshot() -> None:
    lane = Lane(1, fencing_token=9, accepted=5, snapshots={3: SnapshotRef(1, 3, "s" * 64)})
    grant = messages.grant(lane, outer_step=5, exact=True, credits_left=2).grant
    assert (grant.lane, grant.fencing_token, grant.seq, grant.credits) == (1, 9, 5, 2)
    assert (grant.snapshot_seq, grant.snapshot_sha256) == (3, "s" * 64)
    assert list(grant.replay_outer_steps) == [3, 4]


def test_without_a_snapshot_the_replay_starts_at_the_first_theta() -> None:
    grant = messages.grant(Lane(1, 9, accepted=2), outer_step=2, exact=True, credits_left=1).grant
    assert (grant.snapshot_seq, grant.init_outer_step) == (0, 0)
    assert list(grant.replay_outer_steps) == [0, 1]


def test_in_other_modes_a_lane_starts_at_the_newest_theta_without_a_replay() -> None:
    grant = messages.grant(Lane(1, 9, accepted=2), outer_step=40, exact=False, credits_left=1).grant
    assert (grant.seq, grant.init_outer_step, list(grant.replay_outer_steps)) == (2, 40, [])


def test_a_revocation_names_the_lease() -> None:
    revocation = messages.revocation(Lane(1, 9), "moved").revocation
    assert (revocation.lane, revocation.fencing_token, revocation.reason) == (1, 9, "moved")
