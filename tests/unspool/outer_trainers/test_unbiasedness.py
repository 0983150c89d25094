"""What the estimators estimate, tested at 5 sigma against exact gradients, episode boundaries and all."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import LinearSystem
from unspool.outer_trainers.dodge import DODGE
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedStep, VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule
from unspool.steps.unroll import Inputs, unroll

pytestmark = pytest.mark.promoting

SAMPLES, SIGMAS = 4096, 5.0
WEIGHTS = WorkerWeights({"theta": jnp.array([0.3, -0.1])}, None, OuterState(jnp.int32(0)))
NUM_TASKS = 2

Make = Callable[..., Any]
UNBIASED: dict[str, Make] = {
    "TruncatedPES": functools.partial(TruncatedPES, steps_per_jit=1, std=0.5),
    "NRES": functools.partial(NRES, std=0.5),
    "GPES": functools.partial(GPES, noise_length=3, std=0.5),
    "DODGE": DODGE,
}
BIASED: dict[str, Make] = {
    "TruncatedES": functools.partial(TruncatedES, steps_per_jit=1, std=0.5),
    "TruncatedGrad": functools.partial(TruncatedGrad, steps_per_jit=1),
}


def vectorized(system: LinearSystem) -> VectorizedTruncatedStep:
    return VectorizedTruncatedStep(system, NUM_TASKS)


def per_sample(one_sample: Callable[[jax.Array], jax.Array], seed: int) -> np.ndarray:
    keys = jax.random.split(jax.random.PRNGKey(seed), SAMPLES)
    return np.asarray(jax.jit(jax.vmap(one_sample))(keys))


def truncations(estimator: GradientEstimator, num_truncations: int) -> np.ndarray:
    """Independent samples `[SAMPLES, num_truncations, 2]` of estimates from an episode's start on."""

    def one_sample(key: jax.Array) -> jax.Array:
        init_key, windows_key = jax.random.split(key)

        def truncation(state: Any, window_key: jax.Array) -> tuple[Any, jax.Array]:
            out, _ = estimator.estimate(WEIGHTS, window_key, state, estimator.get_data(), False)
            return out.unroll_state, out.grad["theta"]

        state = estimator.init_worker_state(WEIGHTS, init_key)
        return jax.lax.scan(truncation, state, jax.random.split(windows_key, num_truncations))[1]

    return per_sample(one_sample, seed=7)


def exact_windows(estimator: Any, num_truncations: int, forget: bool = False) -> np.ndarray:
    """Samples of each truncation's weighted loss per step, differentiated through all of its episode.

    An unroll's first state is made under the unperturbed theta. With `forget`, states are constants at the
    beginning of each truncation.
    """
    weighting = (getattr(estimator, "weight_by", "step"), getattr(estimator, "death_probability", 0.0))
    return _exact_windows(
        estimator.truncated_step, estimator.steps_of_data(), weighting, num_truncations, forget
    )


@functools.cache
def _exact_windows(
    step: VectorizedStep, length: int, weighting: tuple[Any, float], num_truncations: int, forget: bool
) -> np.ndarray:
    """One reference for all estimators."""
    weight_by, death_probability = weighting

    def weight(out: Any) -> jax.Array:
        seen = (1 - death_probability) ** (jnp.maximum(out.iteration - 1, 0) // length)
        of_episode = out.episode_length / length if weight_by == "episode" else 1.0
        return jnp.where(out.mask, 1 / (seen * of_episode), 0.0)

    def losses(theta: Any, key: jax.Array) -> jax.Array:
        def truncation(state: Any, window_key: jax.Array) -> tuple[Any, jax.Array]:
            state = jax.lax.stop_gradient(state) if forget else state
            inputs = Inputs(step.resident_data() or (), None)
            state, out = unroll(step, theta, state, window_key, length, inputs, theta_is_vector=False)
            return state, jnp.sum(weight(out) * out.loss) / (NUM_TASKS * length)

        init_key, windows_key = jax.random.split(key)
        state = step.init_step_state(WEIGHTS.theta, None, init_key)
        return jax.lax.scan(truncation, state, jax.random.split(windows_key, num_truncations))[1]

    return per_sample(lambda key: jax.jacfwd(losses)(WEIGHTS.theta, key)["theta"], seed=8)


def z_scores(samples: np.ndarray, exact: np.ndarray) -> np.ndarray:
    variance = samples.var(axis=0) + exact.var(axis=0)
    error = samples.mean(axis=0, dtype=np.float64) - exact.mean(axis=0, dtype=np.float64)
    return error / np.maximum(np.sqrt(variance / SAMPLES), 1e-5)


BOUNDARIES = [
    (LinearSystem(2, longest=9), 4),
    (LinearSystem(3, starts_at_theta=True), 5),
    (LinearSystem(4, last_step_only=True), 1),
    (LinearSystem(7, last_step_only=True, done_on_reset=True), 5),
    (LinearSystem(7), 5),
    (LinearSystem(3, last_step_only=True), 7),
    (LinearSystem(4, done_on_reset=True), 1),
]


@pytest.mark.parametrize(
    ("name", "system", "length"),
    [(name, *case) for name in ("TruncatedPES", "NRES") for case in BOUNDARIES]
    + [(name, *case) for name in ("GPES", "DODGE") for case in BOUNDARIES[:4]],
)
def test_estimates_are_unbiased_across_episode_boundaries(
    name: str, system: LinearSystem, length: int
) -> None:
    estimator = UNBIASED[name](vectorized(system), length)
    num_truncations = max(6, 2 * (system.length + 1) // length)
    z = z_scores(truncations(estimator, num_truncations), exact_windows(estimator, num_truncations))
    assert np.abs(z).max() < SIGMAS


@pytest.mark.parametrize("name", BIASED)
def test_estimators_that_forget_are_off_by_just_what_they_forget(name: str) -> None:
    estimator = BIASED[name](vectorized(LinearSystem(length=8)), 4)
    samples = truncations(estimator, 2)
    assert np.abs(z_scores(samples, exact_windows(estimator, 2, forget=True))).max() < SIGMAS
    assert np.abs(z_scores(samples, exact_windows(estimator, 2))[1]).min() > 2 * SIGMAS


OPTIONS = {
    "rademacher": {"perturbation": "rademacher"},
    "sphere": {"perturbation": "sphere"},
    "several pairs": {"pairs_per_task": 3},
    "orthogonal pairs": {"pairs_per_task": 3, "orthogonal": True},
    "telescoped": {"objective": "telescoped"},
    "by episode": {"weight_by": "episode"},
    "inverse survival": {"death_probability": 0.2},
    "one after the other": {"stack_antithetic_samples": False},
}


@pytest.mark.parametrize(
    ("name", "options"),
    [("NRES", options) for options in OPTIONS] + [("TruncatedPES", "orthogonal pairs")],
)
def test_options_leave_estimates_unbiased(name: str, options: str) -> None:
    estimator = UNBIASED[name](vectorized(LinearSystem(2, longest=9)), 4, **OPTIONS[options])
    reference = estimator
    if options == "telescoped":
        reference = UNBIASED[name](estimator.pairs.unrolled_step, 4)
    z = z_scores(truncations(estimator, 5), exact_windows(reference, 5))
    assert np.abs(z).max() < SIGMAS


def test_std_may_differ_from_leaf_to_leaf() -> None:
    step = vectorized(LinearSystem(5))
    estimator = NRES(step, 3, std={"theta": 0.7})
    assert np.abs(z_scores(truncations(estimator, 4), exact_windows(estimator, 4))).max() < SIGMAS


def test_whole_episodes_are_unbiased_and_backpropagation_is_exact() -> None:
    system = LinearSystem(9, starts_at_theta=True)
    schedule = ConstantTruncationSchedule(9)

    def mean_loss(theta: Any) -> jax.Array:
        state = system.init_step_state(theta, None, jax.random.PRNGKey(0))
        losses = []
        for _ in range(9):
            state, out = system.unroll_step(theta, state, jax.random.PRNGKey(0), (), None)
            losses.append(out.loss)
        return jnp.mean(jnp.stack(losses))

    exact = np.asarray(jax.grad(mean_loss)(WEIGHTS.theta)["theta"])
    full_es = truncations(FullES(vectorized(system), schedule, std=0.5, steps_per_jit=3), 1)[:, 0]
    assert np.abs(z_scores(full_es, exact[None])).max() < SIGMAS
    full_grad = truncations(FullGrad(vectorized(system), schedule), 1)[:, 0]
    np.testing.assert_allclose(full_grad, np.broadcast_to(exact, full_grad.shape), rtol=1e-5)


def test_crediting_the_last_step_to_new_noise_would_be_noticed() -> None:
    """An inclusive rule would lose the whole signal of a loss at the last step."""
    estimator = UNBIASED["TruncatedPES"](vectorized(LinearSystem(length=4, last_step_only=True)), 2)
    exact = exact_windows(estimator, 2)
    samples = truncations(estimator, 2)
    only_new_noise = exact[:, 1] - np.array([0.9**3 + 0.9**2, 0.9**3 + 2 * 0.9**2]) / 2
    assert np.abs(z_scores(samples, exact)).max() < SIGMAS
    assert np.abs(z_scores(samples[:, 1], only_new_noise)).max() > 2 * SIGMAS
