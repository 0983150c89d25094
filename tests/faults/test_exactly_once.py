"""Exactly once, by arithmetic: theta counts how often each estimate was applied, under every fault."""

import random
from collections.abc import Callable

import pytest

from tests.faults.configs import one_hot_toml
from tests.faults.ledger import assert_exactly_once
from tests.faults.middleman import Middleman
from tests.faults.processes import FaultyRun

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

KILLS = 20
_VICTIMS = (("w0",), ("w1",), ("learner",), ("learner", "w0"), ("w0", "w1"))


def harm(run: FaultyRun, draws: random.Random, between: str) -> None:
    """Kill one process or two, restart them, and wait for a few outer steps."""
    before = run.status()["outer_step"]
    victims = draws.choice(_VICTIMS)
    for name in victims:
        run.kill(name)
    if "learner" in victims:
        run.start_learner()
    for name in set(victims) - {"learner"}:
        run.start_worker(name, between)
    undone = run.wait_for(lambda status: status["term"] >= 1)["outer_step"]
    run.wait_for_step(min(before, undone) + draws.randrange(1, 9))


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_estimate_counts_once_through_twenty_kills_and_a_faulty_proxy(
    make_run: Callable[..., FaultyRun], mode: str
) -> None:
    run = make_run(one_hot_toml(outer_steps=3000, mode=mode, ballast=50))
    draws = random.Random(11)
    with Middleman(run.address, seed=12) as between:
        run.start("w0", "w1", address=between.address)
        run.wait_for_step(3)
        for _ in range(KILLS):
            harm(run, draws, between.address)
        assert_exactly_once(run)
        assert all(between.done[what] > 0 for what in ("reordered", "repeated", "replayed", "verdicts lost"))
