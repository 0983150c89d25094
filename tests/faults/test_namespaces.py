"""A worker on another network: packets of one direction vanish, as where a route or a firewall is wrong."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.configs import LANES, one_hot_toml
from tests.faults.ledger import assert_exactly_once
from tests.faults.namespace import Namespace, namespace
from tests.faults.processes import FaultyRun, lanes_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture
def elsewhere() -> Iterator[Namespace]:
    with namespace() as made:
        yield made


@pytest.fixture
def run(make_run: Callable[..., FaultyRun], elsewhere: Namespace) -> FaultyRun:
    """w0 is on the other network, w1 on this one."""
    run = make_run(one_hot_toml(outer_steps=3000, ballast=1000), host=elsewhere.here)
    run.start("w1")
    run.start_worker("w0", inside=elsewhere)
    run.wait_for(lambda status: len(lanes_of(status, "w0")) == len(lanes_of(status, "w1")) == 2)
    return run


@pytest.mark.parametrize("end", ["here", "there"])
def test_packets_that_vanish_one_way_cost_a_lease_and_nothing_else(
    run: FaultyRun, elsewhere: Namespace, end: str
) -> None:
    with elsewhere.deaf(end):
        alone = run.wait_for(lambda status: len(lanes_of(status, "w1")) == LANES)
        run.wait_for_step(alone["outer_step"] + 3)
    run.wait_for(lambda status: len(lanes_of(status, "w0")) == 2)
    assert not run.has_ended("w0")
    assert_exactly_once(run)
