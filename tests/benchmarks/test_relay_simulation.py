"""Properties of the simulated tree of relays for any costs."""

import dataclasses

import pytest

from benchmarks.relay_simulation import Costs, Scenario, Simulation

TREES = ((), (1,), (4,), (3, 5))


def run(scenario: Scenario, costs: Costs | None = None):
    return Simulation(scenario, costs or Costs()).run()


@pytest.mark.parametrize("fan_outs", TREES)
@pytest.mark.parametrize("workers", [1, 200])
def test_every_estimate_is_accepted_at_most_once_and_in_order(fan_outs, workers):
    outcome = run(Scenario(workers, fan_outs, period_s=0.1, duration_s=1.0))
    keys = [(estimate.worker, estimate.number) for estimate in outcome.accepted]
    assert len(set(keys)) == len(keys)
    assert len(keys) <= outcome.made
    newest = dict(sorted(keys))
    assert sorted(keys) == [(worker, n) for worker in sorted(newest) for n in range(1, newest[worker] + 1)]


@pytest.mark.parametrize("fan_outs", TREES)
def test_an_idle_cluster_accepts_all_estimates(fan_outs):
    outcome = run(Scenario(20, fan_outs, period_s=10.0, duration_s=10.0, updates_per_s=0.1))
    assert outcome.made - len(outcome.accepted) <= 1
    assert outcome.made == 20


def test_a_relay_for_each_worker_changes_only_arrival_times():
    scenario = Scenario(50, period_s=0.5, duration_s=3.0)
    direct = run(scenario)
    relayed = run(dataclasses.replace(scenario, fan_outs=(1,)))
    assert relayed.pushes == len(relayed.accepted)
    assert relayed.learner_share == pytest.approx(direct.learner_share, rel=0.01)
    assert relayed.thetas_mb == direct.thetas_mb
    hop_s = Costs().hop_s + 2.0 * (Costs().message_s + Costs().per_mb_s * scenario.body_mb)
    assert relayed.latency_s - direct.latency_s == pytest.approx(hop_s, rel=0.2)


@pytest.mark.parametrize("fan_outs", TREES[1:])
def test_merging_never_increases_pushes_or_memory_of_the_learner(fan_outs):
    scenario = Scenario(400, period_s=0.1, duration_s=0.5)
    relayed = run(dataclasses.replace(scenario, fan_outs=fan_outs))
    assert relayed.pushes <= len(relayed.accepted)
    assert relayed.memory_mb <= run(scenario).memory_mb


def test_an_overloaded_learner_is_busy_all_of_the_time():
    outcome = run(Scenario(1000, period_s=0.1, duration_s=0.5))
    assert 0.99 <= outcome.learner_share <= 1.0


def test_a_wider_tree_sends_fewer_thetas_from_the_learner():
    sent = [run(Scenario(256, fan_outs, duration_s=1.5)).thetas_mb for fan_outs in ((), (8,), (64,), (8, 8))]
    assert sent == [pytest.approx(sent[0] / divisor) for divisor in (1, 8, 64, 64)]


def test_runs_with_the_same_seed_are_equal():
    scenario = Scenario(100, (8,), duration_s=1.0)
    assert run(scenario) == run(scenario)
