"""B6, short: with killed workers, restored lanes lead to the optimum, and restarted lanes to another one."""

import pytest

from benchmarks.reproduce import b6_survival as b6

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

_TOLERANCE = 2 * b6.TOLERANCE  # some fifty kills, a quarter of the benchmark's; the optima are 0.016 apart


def test_the_two_optima_are_those_that_the_theory_predicts() -> None:
    assert b6.optimum(0.0) == pytest.approx(-0.0467, abs=5e-5)
    assert b6.optimum(0.05) == pytest.approx(-0.0305, abs=5e-5)
    assert b6.optimum(0.2) == pytest.approx(-0.0064, abs=5e-5)


@pytest.mark.parametrize("case", [b6.RESTORED, b6.RESTARTED], ids=["restored", "restarted"])
def test_theta_reaches_the_optimum_predicted_for_the_treatment_of_lanes(case: b6.Case) -> None:
    theta, kills = b6.trained(case, b6.SHORT)
    assert kills > 30
    assert theta == pytest.approx(case.optimum, abs=_TOLERANCE)
