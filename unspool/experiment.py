"""The training configuration of a run, which determines the final theta."""

import dataclasses
import tomllib
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from unspool.config.components import Table, build, refused
from unspool.config.config_error import ConfigError, Problem, ProblemList
from unspool.config.estimator_table import build_estimator
from unspool.config.outer_optimizer import build_outer_optimizer, check_outer_optimizer
from unspool.config.toml_values import as_toml
from unspool.estimates.checks import check_theta
from unspool.failure_report import FailureReport
from unspool.lanes import lane_state_shape, root_key
from unspool.learned_optimizers.base import LearnedOptimizer
from unspool.outer_trainers.gradient_learner import GradientEstimator, MetaInit, OuterState, WorkerWeights
from unspool.types import PRNGKey, PyTree, Theta


@dataclasses.dataclass(frozen=True)
class _StepInit:
    """The initial theta of an unrolled system that is not a learned optimizer."""

    estimator: GradientEstimator

    def init(self, key: PRNGKey) -> Theta:
        step = getattr(self.estimator, "truncated_step", None)
        if step is None:
            rule = f"missing; {type(self.estimator).__name__} has no truncated_step to initialise theta"
            raise ConfigError(Problem("learned_optimizer", None, rule))
        return step.outer_init(key)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A training configuration; the final theta is a function of it and of the device.

    Attributes:
        seed: the seed of all randomness of the run, 0 to 2**32 - 1.
        outer_steps: number of updates of theta.
        lanes: number of gradient estimates per update, one from each lane.
        learned_optimizer: the learned optimizer that theta parametrises; None if estimators unroll another
            system.
        outer_optimizer: the optimizer of theta.
        estimators: assigned to the lanes in rotation.
    """

    seed: int
    outer_steps: int
    lanes: int
    learned_optimizer: LearnedOptimizer | None
    outer_optimizer: optax.GradientTransformation
    estimators: tuple[GradientEstimator, ...]

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Build an experiment from a run's configuration, or from its training tables alone.

        Raises:
            ConfigError: `text` is not TOML, or its training tables have problems; lists all of them.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(Problem("the configuration", None, f"is not TOML: {error}")) from error
        return cls.from_tables(tables)

    @classmethod
    def from_tables(cls, tables: Table) -> Self:
        """Build an experiment from the training tables; other tables are ignored.

        Raises:
            ConfigError: lists every problem of these tables.
        """
        problems = ProblemList()
        parts: dict[str, Any] = {"learned_optimizer": None}
        with problems.gathered():
            parts["seed"] = _whole_number(tables, "seed", 0, 2**32 - 1)
        with problems.gathered():  # OuterState.outer_iteration is an int32
            parts["outer_steps"] = _whole_number(tables, "outer_steps", 1, 2**31 - 1)
        with problems.gathered():
            aggregation = tables.get("aggregation", {})
            parts["lanes"] = _whole_number(aggregation, "lanes", 1, 4096, "aggregation.lanes")
        with problems.gathered():
            if "learned_optimizer" in tables:
                parts["learned_optimizer"] = build(
                    tables["learned_optimizer"], "learned_optimizer", LearnedOptimizer
                )
        with problems.gathered():
            parts["outer_optimizer"] = build_outer_optimizer(
                tables.get("outer_optimizer", {}), "outer_optimizer"
            )
        with problems.gathered():
            parts["estimators"] = _build_estimators(tables, parts["learned_optimizer"])
        problems.raise_if_any()
        return cls(**parts)

    @property
    def init(self) -> MetaInit:
        """The source of the initial theta, as `GradientLearner` takes it."""
        return self.learned_optimizer or _StepInit(self.estimators[0])

    def estimator(self, lane: int) -> GradientEstimator:
        """Return the estimator of `lane`."""
        return self.estimators[lane % len(self.estimators)]

    def theta_shape(self) -> PyTree:
        """Return theta as a pytree of `jax.ShapeDtypeStruct`."""
        return jax.eval_shape(self.init.init, jax.random.key(0))

    def check(self) -> None:
        """Check that training can start: the parts fit each other, and the data exists.

        Raises:
            ConfigError: lists every problem found.
        """
        problems = ProblemList()
        theta_shape = self.theta_shape()
        try:
            check_theta(theta_shape)
        except (TypeError, ValueError) as error:
            key = "learned_optimizer" if self.learned_optimizer else "estimators[0].truncated_step"
            raise ConfigError(Problem(key, None, str(error))) from error
        with problems.gathered():
            check_outer_optimizer(self.outer_optimizer, theta_shape, "outer_optimizer")
        for index, estimator in enumerate(self.estimators):
            with problems.gathered():
                _check_estimator(estimator, theta_shape, f"estimators[{index}]")
        problems.raise_if_any()


def _whole_number(table: Any, name: str, low: int, high: int, key: str = "") -> int:
    """Return the integer `name` of a table; `key` is its path if it is not `name`."""
    key, rule = key or name, f"must be an integer from {low} to {high}"
    if not isinstance(table, Mapping) or name not in table:
        raise ConfigError(Problem(key, None, f"missing; {rule}"))
    value = table[name]
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(Problem(key, as_toml(value), rule))
    return value


def _build_estimators(
    tables: Table, learned_optimizer: LearnedOptimizer | None
) -> tuple[GradientEstimator, ...]:
    estimator_tables = tables.get("estimators")
    if not isinstance(estimator_tables, list) or not estimator_tables:
        raise ConfigError(Problem("estimators", None, "missing; write at least one [[estimators]] table"))
    problems = ProblemList()
    estimators = []
    for index, table in enumerate(estimator_tables):
        key = f"estimators[{index}]"
        with problems.gathered():
            estimators.append(build_estimator(table, key, learned_optimizer))
        if "learned_optimizer" not in tables and isinstance(table, Mapping) and "task_family" in table:
            rule = f"missing; {key} trains tasks with it"
            problems.add(Problem("learned_optimizer", None, rule))
    problems.raise_if_any()
    return tuple(estimators)


def _check_estimator(estimator: GradientEstimator, theta_shape: PyTree, key: str) -> None:
    if not estimator.is_compiled:
        return  # user code that cannot be traced
    own_shape = jax.eval_shape(estimator.truncated_step.outer_init, jax.random.key(0))
    if own_shape != theta_shape:
        rule = "the system's theta and the run's theta have different structures"
        raise ConfigError(Problem(f"{key}.truncated_step", None, rule))
    try:
        estimator.truncated_step.resident_data()
    except (OSError, ValueError) as error:
        raise refused(error, {}, f"{key}.task_family") from error
    try:
        _trace_estimate(estimator, theta_shape)
    except Exception as error:  # any error of user code would end the run
        rule = f"no estimate can be made: {FailureReport.of(error)}"
        raise ConfigError(Problem(key, None, rule)) from error


def _trace_estimate(estimator: GradientEstimator, theta_shape: PyTree) -> None:
    """Trace one estimate, with shapes in place of arrays."""
    weights = WorkerWeights(theta_shape, None, OuterState(jnp.zeros((), jnp.int32)))
    unroll_state = lane_state_shape(estimator, weights)
    data = estimator.get_data()

    def estimate(weights: WorkerWeights, unroll_state: PyTree) -> Theta:
        out, _ = estimator.estimate(weights, root_key(0), unroll_state, data, with_summary=False)
        return out.grad

    jax.eval_shape(estimate, weights, unroll_state)
