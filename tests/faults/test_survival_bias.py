"""B6, short: where workers die, lanes that are restored reach the optimum; lanes that begin anew do not."""

import pytest

from benchmarks.reproduce import b6_survival as b6

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

_TOLERANCE = 2 * b6.TOLERANCE  # some fifty deaths, a quarter of the benchmark's; the optima are 0.016 apart


def test_the_two_optima_are_those_that_the_theory_predicts() -> None:
    assert b6.optimum(0.0) == pytest.approx(-0.0467, abs=5e-5)
    assert b6.optimum(0.05) == pytest.approx(-0.0305, abs=5e-5)
    assert b6.optimum(0.2) == pytest.approx(-0.0064, abs=5e-5)


@pytest.mark.parametrize("case", [b6.RESTORED, b6.ANEW], ids=["restored", "anew"])
def test_theta_goes_where_the_fate_of_lanes_sends_it(case: b6.Case) -> None:
    theta, deaths = b6.trained(case, b6.SHORT)
    assert deaths > 30
    assert theta == pytest.approx(case.optimum, abs=_TOLERANCE)
