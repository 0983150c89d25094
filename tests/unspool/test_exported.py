from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.unspool.test_experiment import TEXT
from unspool.exported import exported_bytes, load_exported
from unspool.learned_optimizers.base import LearnableSGD
from unspool.optimizers.base import opt_to_optax_opt
from unspool.serialization import SerializationError, to_bytes

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
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "other").write_bytes(data)
    with pytest.raises(SerializationError):
        load_exported(tmp_path / "other")
