"""B7: theta is stable at half the predicted limit of the learning rate, and not at twice that."""

import pytest

from benchmarks.reproduce import b7_staleness as b7

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("staleness", b7.STALENESSES)
def test_theta_converges_at_half_the_limit_and_leaves_at_twice_the_limit(staleness: int) -> None:
    limit = b7.limit(staleness)
    assert b7.at_the_end(b7.course(staleness, 0.5 * limit), staleness) <= b7.GONE
    assert b7.at_the_end(b7.course(staleness, 2.0 * limit), staleness) >= b7.FAR


def test_without_staleness_the_limit_is_that_of_gradient_descent() -> None:
    assert b7.limit(0) == pytest.approx(2.0)
