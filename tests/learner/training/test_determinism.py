"""Theta is a function of the experiment alone: not of arrival order, number of workers, kills or restarts."""

import random
from pathlib import Path

import pytest

from tests.learner.builders import make_settings
from tests.learner.simulation import Simulation, straight_loop

STEPS = 25


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    settings = make_settings(tmp_path_factory.mktemp("straight"), outer_steps=STEPS)
    return straight_loop(settings, STEPS)


@pytest.mark.parametrize("seed", range(12))
def test_theta_does_not_depend_on_what_goes_wrong(tmp_path: Path, expected: list[str], seed: int) -> None:
    settings = make_settings(tmp_path, outer_steps=STEPS, every=1 + seed % 5)
    simulation = Simulation(settings, random.Random(seed))
    assert simulation.run(STEPS, trouble=0.03) == expected[STEPS]
    assert simulation.digests == {outer_step: {expected[outer_step]} for outer_step in range(STEPS + 1)}


def test_theta_does_not_depend_on_the_order_of_events(tmp_path: Path, expected: list[str]) -> None:
    simulation = Simulation(make_settings(tmp_path, outer_steps=STEPS), random.Random(99))
    assert simulation.run(STEPS, trouble=0.0) == expected[STEPS]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_theta_survives_much_more_trouble(tmp_path: Path, expected: list[str], seed: int) -> None:
    settings = make_settings(tmp_path, outer_steps=STEPS, every=1 + seed % 7)
    simulation = Simulation(settings, random.Random(seed))
    assert simulation.run(STEPS, trouble=0.06) == expected[STEPS]
