"""Thetas with leaves that hold no numbers, and thetas that hold none at all."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.unspool.outer_trainers.examples import (
    ESTIMATORS,
    EVOLUTION_STRATEGIES,
    learned_optimizer_step,
)
from unspool.experiment import Experiment
from unspool.learned_optimizers.base import LearnedOptimizer, learned_optimizer_from_opt
from unspool.optimizers.base import SGD
from unspool.optimizers.optimizer import Optimizer
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner
from unspool.types import PRNGKey, Theta

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class LearningRate(LearnedOptimizer):
    """SGD whose theta has further leaves, of no elements, or nothing but these."""

    with_rate: bool = True

    def init(self, key: PRNGKey) -> Theta:
        rate = {"log_lr": jnp.asarray(-3.0)} if self.with_rate else {}
        return {**rate, "none": jnp.zeros((0,)), "rows": jnp.zeros((3, 0))}

    def opt_fn(self, theta: Theta, is_training: bool = False) -> Optimizer:
        return SGD(jnp.exp(theta["log_lr"]))


def updated(name: str, lopt: LearnedOptimizer, **options: Any) -> tuple[Theta, Theta]:
    """Theta before and after an update."""
    step: Any = learned_optimizer_step(name)
    estimator = ESTIMATORS[name](dataclasses.replace(step, learned_opt=lopt), **options)
    learner = SingleMachineGradientLearner(lopt, [estimator], optax.adam(1e-2))
    state = learner.init(KEY)
    after, _, metrics = learner.update(state, KEY)
    assert metrics["applied"] == 1
    return learner.get_meta_params(state), learner.get_meta_params(after)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_leaves_without_elements_are_carried_along(name: str) -> None:
    pairs = {"pairs_per_task": 2} if name in EVOLUTION_STRATEGIES else {}
    before, after = updated(name, LearningRate(), **pairs)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
    assert after["log_lr"] != before["log_lr"]
    assert np.isfinite(after["log_lr"])


@pytest.mark.parametrize("lopt", [LearningRate(with_rate=False), learned_optimizer_from_opt(SGD(0.1))])
def test_a_theta_without_a_number_is_rejected_before_anything_is_computed(lopt: LearnedOptimizer) -> None:
    with pytest.raises(
        ValueError, match=r"theta is empty .*nothing to meta-train.*learned_optimizer_from_opt"
    ):
        updated("TruncatedPES", lopt)


def test_a_configuration_whose_theta_is_empty_is_rejected_by_its_key() -> None:
    text = """
seed = 0
outer_steps = 1
[learned_optimizer]
type = "unspool.learned_optimizers.base:FixedOptimizer"
opt = {type = "unspool.optimizers:SGD"}
[outer_optimizer]
type = "adam"
learning_rate = 0.1
[aggregation]
lanes = 1
[[estimators]]
type = "TruncatedPES"
task_family = {type = "QuadraticTask"}
truncation_schedule = {type = "ConstantTruncationSchedule", total_length = 4}
num_tasks = 2
"""
    with pytest.raises(ValueError, match="learned_optimizer: theta is empty"):
        Experiment.from_toml(text).check()
