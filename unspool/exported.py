"""A trained theta in one file that can be used without the run.

`unspool export RUN --out theta.safetensors` writes the file. Use it as an optax optimizer:

    import optax
    from unspool.exported import load_exported
    from unspool.optimizers.base import opt_to_optax_opt

    trained = load_exported("theta.safetensors")
    optimizer = opt_to_optax_opt(trained.learned_optimizer.opt_fn(trained.theta), num_steps=1000)
    state = optimizer.init(params)

    loss, grads = jax.value_and_grad(loss_of)(params)
    updates, state = optimizer.update(grads, state, params, value=loss)
    params = optax.apply_updates(params, updates)
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path

import jax

from unspool.config.components import build
from unspool.experiment import Experiment
from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.serialization import SerializationError, from_bytes, read_metadata, to_bytes
from unspool.types import Theta

_EXPERIMENT = "experiment_toml"


@dataclasses.dataclass(frozen=True)
class Exported:
    """A trained theta.

    Attributes:
        theta: outer parameters, as NumPy arrays.
        learned_optimizer: the learned optimizer that they parametrise; None if they belong to another
            unrolled system.
        experiment_toml: the training tables of the run.
        facts: other metadata of the file: `run`, `outer_step`, `theta_sha256`.
    """

    theta: Theta
    learned_optimizer: LearnedOptimizer | None
    experiment_toml: str
    facts: Mapping[str, str]


def exported_bytes(theta: Theta, experiment_toml: str, facts: Mapping[str, str]) -> bytes:
    """Return the contents of the file of a trained theta."""
    return to_bytes(theta, {**facts, _EXPERIMENT: experiment_toml})


def load_exported(path: str | Path) -> Exported:
    """Read a trained theta and build the learned optimizer that it belongs to.

    Raises:
        SerializationError: the file is not an export of `unspool export`.
        ConfigError: the learned optimizer cannot be built on this machine.
    """
    data = Path(path).read_bytes()
    facts = read_metadata(data)
    if _EXPERIMENT not in facts:
        raise SerializationError(f"{path}: not an exported theta; write one with `unspool export`")
    experiment_toml = facts.pop(_EXPERIMENT)
    tables = tomllib.loads(experiment_toml)
    if "learned_optimizer" in tables:
        learned_optimizer = build(tables["learned_optimizer"], "learned_optimizer", LearnedOptimizer)
        shape = jax.eval_shape(learned_optimizer.init, jax.random.key(0))
    else:
        learned_optimizer = None
        shape = Experiment.from_tables(tables).theta_shape()
    return Exported(from_bytes(data, shape), learned_optimizer, experiment_toml, facts)
