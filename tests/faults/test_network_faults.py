"""The network between workers and learner: partitioned both ways, one way, cut, slow."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.configs import LANES, one_hot_toml
from tests.faults.ledger import assert_exactly_once
from tests.faults.processes import FaultyRun, lanes_of, state_of
from tests.faults.tcp_proxy import Direction, TcpProxy

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture
def run(make_run: Callable[..., FaultyRun], request: pytest.FixtureRequest) -> FaultyRun:
    """w0 comes through the proxy, w1 directly."""
    return make_run(one_hot_toml(outer_steps=3000, ballast=1000, **getattr(request, "param", {})))


@pytest.fixture
def proxy(run: FaultyRun) -> Iterator[TcpProxy]:
    with TcpProxy(run.address) as proxy:
        run.start("w1")
        run.start_worker("w0", proxy.address)
        run.wait_for(lambda status: len(lanes_of(status, "w0")) == len(lanes_of(status, "w1")) == 2)
        yield proxy


def test_a_partitioned_workers_lanes_go_to_others_and_it_comes_back(run: FaultyRun, proxy: TcpProxy) -> None:
    proxy.partition()
    run.wait_for(lambda status: state_of(status, "w0") == "suspect" and len(lanes_of(status, "w0")) == 2)
    alone = run.wait_for(lambda status: len(lanes_of(status, "w1")) == LANES)
    run.wait_for_step(alone["outer_step"] + 3)
    proxy.heal()
    run.wait_for(lambda status: len(lanes_of(status, "w0")) == 2)
    assert not run.has_ended("w0")
    assert_exactly_once(run)


@pytest.mark.parametrize("run", [{"patience": 100}], indirect=True)
def test_a_partition_shorter_than_the_lease_costs_no_lane(run: FaultyRun, proxy: TcpProxy) -> None:
    proxy.partition()
    before = run.wait_for(lambda status: state_of(status, "w0") == "suspect")
    proxy.heal()
    back = run.wait_for(lambda status: state_of(status, "w0") == "active")
    assert lanes_of(back, "w0") == lanes_of(before, "w0")
    run.wait_for_step(back["outer_step"] + 3)
    assert "expired" not in run.events()
    assert_exactly_once(run)


@pytest.mark.parametrize("deaf", ["downwards", "upwards"])
def test_a_worker_that_is_cut_off_one_way_notices_by_itself(
    run: FaultyRun, proxy: TcpProxy, deaf: str
) -> None:
    direction: Direction = getattr(proxy, deaf)
    direction.drops = True
    alone = run.wait_for(lambda status: len(lanes_of(status, "w1")) == LANES)
    run.wait_for_step(alone["outer_step"] + 3)
    proxy.heal()
    run.wait_for(lambda status: len(lanes_of(status, "w0")) == 2)
    assert not run.has_ended("w0")
    assert_exactly_once(run)


def test_connections_that_are_cut_again_and_again_cost_nothing(run: FaultyRun, proxy: TcpProxy) -> None:
    for _ in range(15):
        proxy.cut()
        status = run.wait_for(lambda status: state_of(status, "w0") == "active")
        run.wait_for_step(status["outer_step"] + 2)
    assert_exactly_once(run)


def test_a_slow_network_makes_a_slow_run_and_no_other_theta(run: FaultyRun, proxy: TcpProxy) -> None:
    proxy.upwards.delay_s = proxy.downwards.delay_s = 0.02
    proxy.upwards.bytes_per_s = 400_000
    status = run.status()
    later = run.wait_for_step(status["outer_step"] + 10)
    assert state_of(later, "w0") == "active"
    assert proxy.upwards.passed > 0
    assert_exactly_once(run)
