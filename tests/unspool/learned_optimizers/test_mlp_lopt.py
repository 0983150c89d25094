"""MLPLOpt's arithmetic against a direct transcription of its definition."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.learned_optimizers import mlp_lopt
from unspool.learned_optimizers.mlp_lopt import MLPLOpt

TIMESCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)
DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
SHAPES = [(), (5,), (4, 3), (2, 3, 2, 2), (7,)]
PARAMS = [jax.random.normal(jax.random.key(index), shape) for index, shape in enumerate(SHAPES)]


def transcription(theta: Any, params: Any, num_steps: int, exp_mult: float, step_mult: float) -> Any:
    """Tensor by tensor and step by step, features last, as the optimizer is described."""
    momenta = [np.zeros((*param.shape, 6)) for param in params]
    for iteration in range(num_steps):
        steps = []
        for param, momentum in zip(params, momenta, strict=True):
            grad = 2 * (param - 0.5)
            momentum[...] = np.array(DECAYS) * momentum + (1 - np.array(DECAYS)) * grad[..., None]
            features = np.concatenate([grad[..., None], param[..., None], momentum], -1).reshape(-1, 8)
            features = features / np.sqrt(1e-5 + np.mean(features**2, axis=0))
            time = np.tanh(iteration / np.array(TIMESCALES) - 1)
            outputs = mlp(theta, np.concatenate([features, np.tile(time, (len(features), 1))], axis=1))
            step = outputs[:, 0] * np.exp(outputs[:, 1] * exp_mult) * step_mult
            steps.append(step.reshape(param.shape))
        params = [param - step for param, step in zip(params, steps, strict=True)]
    return params


def mlp(theta: Any, rows: np.ndarray) -> np.ndarray:
    first, second, last = (theta[f"mlp/~/linear_{index}"] for index in range(3))
    hidden = np.maximum(rows @ np.asarray(first["w"]) + np.asarray(first["b"]), 0)
    hidden = np.maximum(hidden @ np.asarray(second["w"]) + np.asarray(second["b"]), 0)
    return hidden @ np.asarray(last["w"]) + np.asarray(last["b"])


def loss_fn(params: Any) -> jax.Array:
    return sum((jnp.sum(jnp.square(param - 0.5)) for param in params), jnp.zeros(()))


@pytest.mark.parametrize("max_shared_elements", [1 << 17, 6, 1])
def test_steps_follow_the_definition_however_tensors_are_grouped(
    monkeypatch: pytest.MonkeyPatch, max_shared_elements: int
) -> None:
    monkeypatch.setattr(mlp_lopt, "_MAX_SHARED_ELEMENTS", max_shared_elements)
    learned_opt = MLPLOpt(exp_mult=0.5, step_mult=0.1)
    theta = learned_opt.init(jax.random.key(3))
    opt = learned_opt.opt_fn(theta)
    state = opt.init(PARAMS)
    update = jax.jit(lambda state: opt.update(state, jax.grad(loss_fn)(opt.get_params(state))))
    for _ in range(3):
        state = update(state)
    expected = transcription(theta, [np.asarray(param) for param in PARAMS], 3, exp_mult=0.5, step_mult=0.1)
    for actual, leaf in zip(opt.get_params(state), expected, strict=True):
        np.testing.assert_allclose(actual, leaf, rtol=1e-4, atol=1e-5)


def test_theta_has_the_documented_size() -> None:
    theta = MLPLOpt().init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(theta)) == 1762


def test_momenta_are_float32_beside_half_precision_parameters() -> None:
    opt = MLPLOpt().opt_fn(MLPLOpt().init(jax.random.key(0)))
    params = {"w": jnp.ones((2, 3), jnp.bfloat16)}
    state = opt.update(opt.init(params), params)
    assert state.params["w"].dtype == jnp.bfloat16
    assert state.rolling_features["w"].dtype == jnp.float32


def test_huge_gradients_make_steps_of_the_usual_size() -> None:
    opt = MLPLOpt().opt_fn(MLPLOpt().init(jax.random.key(0)))
    params = jnp.zeros(4)
    state = opt.update(opt.init(params), jnp.asarray([1e15, -1e15, 1.0, 0.0]))
    assert 0.0 < jnp.max(jnp.abs(opt.get_params(state))) < 0.1


def test_compute_summary_does_not_distinguish_configurations() -> None:
    assert MLPLOpt(compute_summary=False) == MLPLOpt()
    assert hash(MLPLOpt(compute_summary=False)) == hash(MLPLOpt())
