"""One short example of every system, for the tests of common laws. Add new systems here."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.truncated_step import TruncatedStep, TruncatedUnrollOut
from unspool.systems.influence_balancing import InfluenceBalancing
from unspool.systems.learning_rate_ramp import LearningRateRamp
from unspool.systems.lorenz import LorenzFit
from unspool.systems.pendulum import PendulumSwingUp

EPISODE_LENGTH = 12

TABLES: dict[str, dict[str, Any]] = {
    "InfluenceBalancing": {"type": "InfluenceBalancing", "loss_every": 2},
    "InfluenceBalancing, per unit": {"type": "InfluenceBalancing", "per_unit_theta": True},
    "LearningRateRamp": {"type": "LearningRateRamp"},
    "LorenzFit": {"type": "LorenzFit"},
    "PendulumSwingUp": {"type": "PendulumSwingUp", "hidden_size": 3},
    "PendulumSwingUp, sparse": {"type": "PendulumSwingUp", "hidden_size": 3, "cost": "sparse"},
}

SYSTEMS: dict[str, type[Any]] = {
    system.__name__: system for system in (InfluenceBalancing, LearningRateRamp, LorenzFit, PendulumSwingUp)
}


def example(name: str, **options: Any) -> TruncatedStep:
    """Return the example `name` with episodes of `EPISODE_LENGTH` steps."""
    arguments = {"episode_length": EPISODE_LENGTH, **TABLES[name], **options}
    system: TruncatedStep = SYSTEMS[arguments.pop("type")](**arguments)
    return system


@functools.partial(jax.jit, static_argnums=(0, 2))
def unroll(
    system: TruncatedStep, theta: Any, num_steps: int, seed: int = 0
) -> tuple[Any, TruncatedUnrollOut]:
    """Return the state after `num_steps` steps of one unroll from its start, and the outputs of the steps."""
    init_key, unroll_key = jax.random.split(jax.random.PRNGKey(seed))

    def body(state: Any, key: jax.Array) -> tuple[Any, TruncatedUnrollOut]:
        return system.unroll_step(theta, state, key, None, None)

    state = system.init_step_state(theta, None, init_key)
    return jax.lax.scan(body, state, jax.random.split(unroll_key, num_steps))


def weights_of(system: TruncatedStep) -> WorkerWeights:
    """Return an initial theta."""
    return WorkerWeights(system.outer_init(jax.random.PRNGKey(0)), None, OuterState(jnp.int32(0)))
