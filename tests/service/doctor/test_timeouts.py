"""The hierarchy of timeouts."""

import pytest

from learner.tables import LivenessTable
from service.doctor.timeouts import Timeouts, inconsistencies


def test_the_defaults_fit_each_other() -> None:
    assert inconsistencies(Timeouts.of(LivenessTable())) == []


def test_the_others_follow_from_two() -> None:
    derived = Timeouts.of(LivenessTable(heartbeat_s=2.0, patience=4))
    assert (derived.suspect_s, derived.lease_ttl_s) == (4.0, 16.0)
    assert "lease ttl 16 s" in str(derived)


@pytest.mark.parametrize(
    ("liveness", "key"),
    [
        (LivenessTable(heartbeat_s=0.5), "liveness.heartbeat_s"),
        (LivenessTable(heartbeat_s=5.0, orphan_ttl_s=20.0), "liveness.orphan_ttl_s above 30"),
        (LivenessTable(heartbeat_s=1.0, orphan_ttl_s=10.0), "liveness.orphan_ttl_s above 15"),
    ],
)
def test_what_does_not_fit_is_told_with_the_key_to_change(liveness: LivenessTable, key: str) -> None:
    ((_, remedy),) = inconsistencies(Timeouts.of(liveness))
    assert key in remedy
