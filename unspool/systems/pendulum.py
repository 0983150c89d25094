"""Pendulum swing-up: a control problem in which theta is a small policy network.

The dynamics are those of Gymnasium's pendulum without its speed limit:
https://gymnasium.farama.org/environments/classic_control/pendulum/. The motor is too weak to lift the
pendulum directly. The dynamics are smooth, so that estimates can be compared with exact gradients. With the
sparse cost the loss is piecewise constant in theta: its gradient is zero almost everywhere, and only
evolution strategies learn.
"""

import dataclasses
import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from unspool.config.arguments import check_choice, check_whole_number
from unspool.lazy_cond import lazy_cond
from unspool.outer_trainers.truncated_step import EpisodesInExpectation, TruncatedStep, TruncatedUnrollOut
from unspool.systems import episode_clock
from unspool.systems.episode_clock import EpisodeClock
from unspool.types import Batch, OuterState, PRNGKey, Scalar, Theta

Cost = Literal["smooth", "sparse"]
"""The cost of a step. smooth: `(1 - cos(angle)) / 2`, plus small terms for speed and torque. sparse: 0 if the
pendulum points up, else 1.
"""

_TIME_STEP = 0.05
_GRAVITY = 10.0
_MAX_TORQUE = 2.0
_SPEED_SCALE = 8.0
_UPRIGHT_COSINE = 0.95


class PendulumState(NamedTuple):
    """The angle `[]` (0 is upright), the angular speed `[]`, and the position in the episode."""

    angle: Scalar
    speed: Scalar
    clock: EpisodeClock


@dataclasses.dataclass(frozen=True)
class PendulumSwingUp(TruncatedStep):
    """`speed' = 15 sin(angle) + 3 torque`, `angle' = speed`, in semi-implicit Euler steps of 0.05.

    The torque is `2 tanh(policy)`. The policy is a tanh network with one hidden layer; its inputs are the
    cosine and sine of the angle, and the speed. Each episode starts at a random angle, almost at rest.

    Theta is `{"hidden": {"weight": [3, h], "bias": [h]}, "out": {"weight": [h], "bias": []}}`.

    Attributes:
        hidden_size: `h`.
        cost: the loss of a step, smooth or sparse.
        episode_length: steps between resets.
        stagger: if not 0, the first episode is shortened to a random multiple of this.
    """

    hidden_size: int = 8
    cost: Cost = "smooth"
    episode_length: int = 200
    stagger: int = 0

    def __post_init__(self) -> None:
        check_whole_number(self, "hidden_size")
        check_choice(self, "cost", get_args(Cost))
        episode_clock.check(self)

    def outer_init(self, key: PRNGKey) -> Theta:
        hidden_key, out_key = jax.random.split(key)
        size = self.hidden_size
        return {
            "hidden": {
                "weight": jax.random.normal(hidden_key, (3, size), jnp.float32) / math.sqrt(3),
                "bias": jnp.zeros(size, jnp.float32),
            },
            "out": {
                "weight": jax.random.normal(out_key, (size,), jnp.float32) / math.sqrt(size),
                "bias": jnp.zeros((), jnp.float32),
            },
        }

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        del outer_state
        return episode_clock.expected(self)

    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> PendulumState:
        del theta, outer_state
        start_key, clock_key = jax.random.split(key)
        angle, speed = _start(start_key)
        return PendulumState(angle, speed, episode_clock.first(self, clock_key))

    def unroll_step(
        self, theta: Theta, unroll_state: PendulumState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[PendulumState, TruncatedUnrollOut]:
        del data, outer_state
        angle, speed, clock = unroll_state
        torque = _MAX_TORQUE * jnp.tanh(policy(theta, angle, speed))
        speed = speed + _TIME_STEP * (1.5 * _GRAVITY * jnp.sin(angle) + 3 * torque)
        angle = angle + _TIME_STEP * speed
        following, is_done = episode_clock.after_step(self, clock)
        angle_and_speed = lazy_cond(is_done, lambda: _start(key), (angle, speed))
        out = episode_clock.step_out(self._loss(angle, speed, torque), is_done, clock)
        return PendulumState(*angle_and_speed, following), out

    def _loss(self, angle: Scalar, speed: Scalar, torque: Scalar) -> Scalar:
        if self.cost == "sparse":
            return jnp.where(jnp.cos(angle) > _UPRIGHT_COSINE, 0.0, 1.0)
        return (1 - jnp.cos(angle)) / 2 + 0.01 * speed**2 + 0.001 * torque**2


def policy(theta: Theta, angle: Scalar, speed: Scalar) -> Scalar:
    """Return the output of the network; its tanh is the fraction of the maximum torque."""
    seen = jnp.stack([jnp.cos(angle), jnp.sin(angle), speed / _SPEED_SCALE])
    hidden = jnp.tanh(seen @ theta["hidden"]["weight"] + theta["hidden"]["bias"])
    return jnp.dot(hidden, theta["out"]["weight"]) + jnp.asarray(theta["out"]["bias"])


def _start(key: PRNGKey) -> tuple[Scalar, Scalar]:
    """Return the angle and speed at the start of an episode: any angle, almost at rest. Consumes `key`."""
    angle, speed = jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
    return math.pi * angle, speed
