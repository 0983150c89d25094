"""The capacity rule."""

import itertools

import pytest

from service.doctor.capacity import (
    KIB,
    LOAD,
    MEASURED,
    MIB,
    STREAMS,
    gradients_per_s,
    learner_memory,
    message_s,
    wants_relay,
    workers_carried,
)


@pytest.mark.parametrize(("theta_bytes", "measured_s"), MEASURED.items())
def test_a_measured_size_costs_what_was_measured(theta_bytes: int, measured_s: float) -> None:
    assert message_s(theta_bytes) == pytest.approx(measured_s)


def test_between_two_points_the_cost_lies_between_theirs() -> None:
    for (small, low_s), (large, high_s) in itertools.pairwise(MEASURED.items()):
        assert message_s((small + large) / 2) == pytest.approx((low_s + high_s) / 2)


def test_a_tiny_theta_costs_as_much_as_the_smallest_measured() -> None:
    assert message_s(0) == MEASURED[10 * KIB]


def test_beyond_the_largest_measured_the_cost_continues_growing() -> None:
    assert message_s(64 * MIB) > 1.9 * message_s(32 * MIB) - 1e-3


def test_a_larger_theta_never_costs_less() -> None:
    costs = [message_s(2**exponent) for exponent in range(2, 30)]
    assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("theta_bytes", "expected"), [(10 * KIB, 2000), (0.62 * MIB, 500), (8 * MIB, 40), (32 * MIB, 12)]
)
def test_the_rule_gives_the_figures_that_the_service_was_designed_with(theta_bytes, expected) -> None:
    assert gradients_per_s(theta_bytes) == pytest.approx(expected, rel=0.2)


def test_the_load_of_what_is_carried_is_half_a_core() -> None:
    assert gradients_per_s(1 * MIB) * message_s(1 * MIB) == pytest.approx(LOAD)


def test_slower_gradients_allow_more_workers_up_to_the_streams_one_learner_holds() -> None:
    assert workers_carried(8 * MIB, 2.0) == pytest.approx(2 * workers_carried(8 * MIB, 1.0), abs=1)
    assert workers_carried(10 * KIB, 100.0) == STREAMS
    assert workers_carried(32 * MIB, 1e-6) == 1


@pytest.mark.parametrize(
    ("theta_bytes", "workers", "expected"),
    [(8 * MIB, 2, True), (8 * MIB, 1, False), (8 * MIB - 1, 64, False)],
)
def test_workers_of_a_node_share_a_relay_from_eight_mebibytes_on(theta_bytes, workers, expected) -> None:
    assert wants_relay(theta_bytes, workers) is expected


def test_only_exact_replay_keeps_the_thetas_between_snapshots() -> None:
    exact = learner_memory(MIB, buffered=20, snapshot_every=100, is_exact=True)
    recent = learner_memory(MIB, buffered=20, snapshot_every=100, is_exact=False)
    assert exact.ring - recent.ring == 200 * MIB
    assert exact.buffer == recent.buffer == 20 * MIB
    assert exact.total == exact.ring + exact.buffer + exact.optimizer + exact.process
