from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.unspool.test_experiment import TEXT
from unspool.exported import exported_bytes, load_exported
from unspool.learned_optimizers.base import LearnableSGD
from unspool.optimizers.base import opt_to_optax_opt
from unspool.serialization import SerializationError, to_bytes

STORED = Path(__file__).parents[1] / "data" / "stored_2026_11"
THETA = {"log_lr": np.float32(np.log(0.2))}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "theta.safetensors"
    path.write_bytes(exported_bytes(THETA, TEXT, {"run": "walkabout", "outer_step": "12"}))
    return path


def test_an_exported_theta_comes_back_with_its_learned_optimizer(exported: Path) -> None:
    trained = load_exported(exported)
    assert trained.learned_optimizer == LearnableSGD()
    np.testing.assert_array_equal(trained.theta["log_lr"], THETA["log_lr"])
    assert trained.facts == {"run": "walkabout", "outer_step": "12"}


def test_an_exported_learned_optimizer_is_an_optax_optimizer(exported: Path) -> None:
    trained = load_exported(exported)
    assert trained.learned_optimizer is not None
    optimizer = opt_to_optax_opt(trained.learned_optimizer.opt_fn(trained.theta), num_steps=10)
    params = jnp.ones(3)
    updates, _ = optimizer.update(params, optimizer.init(params), params, value=1.0)
    np.testing.assert_allclose(optax.apply_updates(params, updates), 0.8, rtol=1e-5)


@pytest.mark.parametrize("data", [b"something else", to_bytes(THETA, {})])
def test_another_file_is_rejected(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "other").write_bytes(data)
    with pytest.raises(SerializationError):
        load_exported(tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("learnable_adam", {"b": 0.2984766, "w": [-0.0829259, 0.4249006, 0.1104875]}),
        ("mlp_lopt", {"b": 0.5016243, "w": [1.0012447, -1.9992095, 3.0017922]}),
    ],
)
def test_a_file_of_an_earlier_program_gives_the_same_steps(name: str, params: dict[str, Any]) -> None:
    trained = load_exported(STORED / f"{name}.safetensors")
    assert trained.learned_optimizer is not None
    optimizer = opt_to_optax_opt(trained.learned_optimizer.opt_fn(trained.theta), num_steps=10)
    reached = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.float32(0.5)}
    state = optimizer.init(reached)
    for _ in range(3):
        gradient = jax.tree.map(lambda leaf: leaf * 0.1, reached)
        updates, state = optimizer.update(gradient, state, reached, value=jnp.float32(1.0))
        reached = optax.apply_updates(reached, updates)
    for leaf, value in params.items():
        np.testing.assert_allclose(reached[leaf], value, rtol=1e-4)
