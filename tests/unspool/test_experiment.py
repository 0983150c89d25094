import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from unspool.config.config_error import ConfigError
from unspool.experiment import Experiment
from unspool.lanes import theta_key
from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import (
    TruncatedStep,
    TruncatedUnrollOut,
    VectorizedTruncatedStep,
)
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.tasks.quadratics import FixedDimQuadraticFamily

pytestmark = pytest.mark.promoting  # outer optimizers are optax's

TEXT = """
seed = 3
outer_steps = 50
[learned_optimizer]
type = "LearnableSGD"
[outer_optimizer]
type = "sgd"
learning_rate = 1.0
[aggregation]
lanes = 3
[[estimators]]
type = "TruncatedPES"
trunc_length = 10
num_tasks = 4
truncation_schedule = { type = "LogUniformLengthSchedule", min_length = 10, max_length = 30 }
task_family = { type = "FixedDimQuadraticFamily", dim = 3 }
random_initial_iteration_offset = 5
[[estimators]]
type = "FullES"
num_tasks = 2
truncation_schedule = { type = "ConstantTruncationSchedule", total_length = 20 }
task_family = { type = "FixedDimQuadraticFamily", dim = 3 }
"""


class Walk(TruncatedStep):
    """A system that is no learned optimizer: theta is how far each step goes."""

    def outer_init(self, key: jax.Array) -> Any:
        return {"stride": jnp.ones(2)}

    def init_step_state(self, theta: Any, outer_state: Any, key: jax.Array) -> Any:
        return jnp.zeros(2)

    def unroll_step(
        self, theta: Any, unroll_state: Any, key: jax.Array, data: Any, outer_state: Any
    ) -> tuple[Any, TruncatedUnrollOut]:
        position = unroll_state + theta["stride"]
        steps = jnp.ones((), jnp.int32)
        out = TruncatedUnrollOut(jnp.sum(position**2), jnp.zeros((), bool), steps, steps, jnp.ones((), bool))
        return position, out


class Stumble(Walk):
    """A system with a mistake in it."""

    def unroll_step(
        self, theta: Any, unroll_state: Any, key: jax.Array, data: Any, outer_state: Any
    ) -> tuple[Any, TruncatedUnrollOut]:
        raise KeyError("strode")


def tables(**changes: Any) -> dict[str, Any]:
    return {**tomllib.loads(TEXT), **changes}


def with_estimator(**changes: Any) -> dict[str, Any]:
    estimator = {**tomllib.loads(TEXT)["estimators"][0], **changes}
    return tables(estimators=[{name: value for name, value in estimator.items() if value is not None}])


def walk(**changes: Any) -> dict[str, Any]:
    table = {"type": "TruncatedPES", "trunc_length": 10, "truncated_step": {"type": f"{__name__}:Walk"}}
    return {**table, "num_tasks": 4, **changes}


def problems_of(tables: Mapping[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        Experiment.from_tables(tables).check()
    return {problem.key: str(problem) for problem in caught.value.problems}


def applied(experiment: Experiment, gradient: float) -> float:
    theta = jnp.zeros(4)
    optimizer = experiment.outer_optimizer
    updates, _ = optimizer.update(jnp.full(4, gradient), optimizer.init(theta), theta)
    return float(updates[0])


def test_the_tables_become_an_experiment() -> None:
    experiment = Experiment.from_toml(TEXT)
    assert (experiment.seed, experiment.outer_steps, experiment.lanes) == (3, 50, 3)
    assert experiment.learned_optimizer == LearnableSGD()


def test_an_estimators_table_holds_the_arguments_of_its_step() -> None:
    step = VectorizedLOptTruncatedStep(
        FixedDimQuadraticFamily(3),
        LearnableSGD(),
        LogUniformLengthSchedule(10, 30),
        num_tasks=4,
        random_initial_iteration_offset=5,
    )
    assert Experiment.from_toml(TEXT).estimator(0) == TruncatedPES(step, trunc_length=10)


def test_an_estimator_of_whole_episodes_keeps_the_schedule_to_itself() -> None:
    step = VectorizedLOptTruncatedStep(
        FixedDimQuadraticFamily(3), LearnableSGD(), NeverEndingTruncationSchedule(), num_tasks=2
    )
    assert Experiment.from_toml(TEXT).estimator(1) == FullES(step, ConstantTruncationSchedule(20))


def test_lanes_take_the_estimators_in_turn() -> None:
    experiment = Experiment.from_toml(TEXT)
    assert [type(experiment.estimator(lane)) for lane in range(3)] == [TruncatedPES, FullES, TruncatedPES]


def test_equal_tables_give_estimators_that_share_a_compilation() -> None:
    first, second = Experiment.from_toml(TEXT), Experiment.from_toml(TEXT)
    assert hash(first.estimators) == hash(second.estimators)
    assert first.estimators == second.estimators


def test_other_tables_of_a_run_are_not_read() -> None:
    assert Experiment.from_tables(tables(workers={"count": 3})).lanes == 3


def test_theta_shape_is_that_of_the_initial_theta() -> None:
    experiment = Experiment.from_toml(TEXT)
    theta = experiment.init.init(theta_key(experiment.seed))
    assert jax.tree.map(jnp.shape, theta) == jax.tree.map(lambda leaf: leaf.shape, experiment.theta_shape())


def test_any_unrolled_system_can_be_meta_trained() -> None:
    without = {name: table for name, table in tables().items() if name != "learned_optimizer"}
    experiment = Experiment.from_tables({**without, "estimators": [walk()]})
    experiment.check()
    assert isinstance(experiment.estimator(0).truncated_step, VectorizedTruncatedStep)
    np.testing.assert_array_equal(experiment.init.init(jax.random.key(0))["stride"], jnp.ones(2))


def test_a_sound_experiment_passes_its_check() -> None:
    Experiment.from_toml(TEXT).check()


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "sgd", "rmsprop", "muon", "ademamix"])
def test_any_optax_optimizer_can_be_the_outer_one(name: str) -> None:
    optimizer = {"type": name, "learning_rate": 1e-3}
    Experiment.from_tables(tables(outer_optimizer=optimizer)).check()


@pytest.mark.parametrize(
    ("clipping", "update"), [({}, -8.0), ({"clip": 3.0}, -3.0), ({"clip_norm": 1.0}, -0.5)]
)
def test_gradients_are_clipped_before_the_optimizer(clipping: dict[str, float], update: float) -> None:
    optimizer = {"type": "sgd", "learning_rate": 1.0, **clipping}
    assert applied(Experiment.from_tables(tables(outer_optimizer=optimizer)), 8.0) == pytest.approx(update)


@pytest.mark.parametrize(
    "schedule",
    [
        {"type": "constant_schedule", "value": 0.5},
        {"type": "exponential_decay", "init_value": 0.5, "transition_steps": 10, "decay_rate": 0.9},
    ],
)
def test_the_learning_rate_may_be_an_optax_schedule(schedule: dict[str, Any]) -> None:
    experiment = Experiment.from_tables(tables(outer_optimizer={"type": "sgd", "learning_rate": schedule}))
    assert isinstance(experiment.outer_optimizer, optax.GradientTransformation)
    assert applied(experiment, 1.0) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"seed": -1}, "seed", "from 0 to 4294967295"),
        ({"seed": 2**32}, "seed", "from 0 to 4294967295"),
        ({"outer_steps": 0}, "outer_steps", "from 1"),
        ({"outer_steps": 1.5}, "outer_steps", "must be an integer"),
        ({"aggregation": {}}, "aggregation.lanes", "missing"),
        ({"aggregation": {"lanes": 0}}, "aggregation.lanes", "from 1"),
        ({"estimators": []}, "estimators", "missing"),
        ({"estimators": [{"type": "TruncatedPSE"}]}, "estimators[0].type", "did you mean TruncatedPES?"),
        ({"learned_optimizer": {"type": "FullES"}}, "learned_optimizer.type", "; expected"),
        ({"outer_optimizer": {}}, "outer_optimizer.type", "missing"),
        ({"outer_optimizer": "adam"}, "outer_optimizer", "must be a table"),
        ({"outer_optimizer": {"type": "adm"}}, "outer_optimizer.type", "did you mean adam?"),
        ({"outer_optimizer": {"type": "lbfgs"}}, "outer_optimizer.type", "cannot be used"),
        (
            {"outer_optimizer": {"type": "sgd", "learning_rate": 1.0, "clip": 0}},
            "outer_optimizer.clip",
            "must be a number above 0",
        ),
        (
            {"outer_optimizer": {"type": "sgd", "learning_rate": {"type": "cosine"}}},
            "outer_optimizer.learning_rate.type",
            "is not an optax schedule",
        ),
    ],
)
def test_a_bad_training_table_is_named(changes: dict[str, Any], key: str, words: str) -> None:
    assert words in problems_of(tables(**changes))[key]


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"trunc_lenght": 50}, "estimators[0].trunc_lenght", "did you mean trunc_length?"),
        ({"num_taks": 50}, "estimators[0].num_taks", "did you mean num_tasks?"),
        ({"truncated_step": 3}, "estimators[0].truncated_step", "must be"),
        ({"std": -0.1}, "estimators[0].std", "std must be positive"),
        ({"num_tasks": 0}, "estimators[0].num_tasks", "num_tasks must be at least 1"),
        ({"num_tasks": None}, "estimators[0].num_tasks", "missing"),
        ({"truncation_schedule": None}, "estimators[0].truncation_schedule", "missing"),
        ({"task_family": None}, "estimators[0].task_family", "missing"),
        ({"steps_per_jit": 0}, "estimators[0].steps_per_jit", "steps_per_jit must be at least 1"),
    ],
)
def test_a_bad_estimators_table_is_named(changes: dict[str, Any], key: str, words: str) -> None:
    assert words in problems_of(with_estimator(**changes))[key]


def test_tasks_without_a_learned_optimizer_are_rejected() -> None:
    without = {name: table for name, table in tables().items() if name != "learned_optimizer"}
    assert "estimators[0] trains tasks with it" in problems_of(without)["learned_optimizer"]


def test_systems_with_different_thetas_are_rejected() -> None:
    assert "different structures" in problems_of(tables(estimators=[walk()]))["estimators[0].truncated_step"]


def test_a_system_that_cannot_be_unrolled_is_found_out_before_training() -> None:
    stumble = walk(truncated_step={"type": f"{__name__}:Stumble"})
    without = {name: table for name, table in tables().items() if name != "learned_optimizer"}
    problem = problems_of({**without, "estimators": [stumble]})["estimators[0]"]
    line = Path(__file__).read_text().splitlines().index('        raise KeyError("strode")') + 1
    place = f"test_experiment.py:{line} in unroll_step"
    assert problem == f"estimators[0]: no estimate can be made: KeyError: 'strode' ({place})"


def test_a_single_unroll_needs_to_know_how_many_run_side_by_side() -> None:
    table = {name: value for name, value in walk().items() if name != "num_tasks"}
    assert "missing" in problems_of(tables(estimators=[table]))["estimators[0].num_tasks"]


def test_data_that_is_not_there_is_found_out_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSPOOL_DATA_DIR", raising=False)
    family = {"type": "ImageMLP_FashionMnist8_Relu32"}
    assert "UNSPOOL_DATA_DIR" in problems_of(with_estimator(task_family=family))["estimators[0].task_family"]


def test_problems_of_several_tables_are_reported_together() -> None:
    bad = {**with_estimator(trunc_lenght=5), "seed": -1, "outer_optimizer": {"type": "adm"}}
    assert set(problems_of(bad)) == {"seed", "outer_optimizer.type", "estimators[0].trunc_lenght"}


def test_text_that_is_no_toml_is_rejected() -> None:
    with pytest.raises(ConfigError, match="is not TOML"):
        Experiment.from_toml("seed = ")


def test_an_unknown_type_of_an_estimator_hides_no_other_problem() -> None:
    estimator = {"type": "TruncatdPES", "task_family": {"type": "FixedDimQuadraticFamly", "dim": 3}}
    wrong = {
        "seed": -1,
        "learned_optimizer": {"type": "MLPLopt"},
        "outer_optimizer": {"type": "adm"},
        "estimators": [estimator, {**estimator, "type": "TruncatedES", "std": "wide"}],
    }
    with pytest.raises(ConfigError) as caught:
        Experiment.from_tables({**tables(), **wrong})
    keys = {problem.key for problem in caught.value.problems}
    assert keys >= {
        "seed",
        "learned_optimizer.type",
        "outer_optimizer.type",
        "estimators[0].type",
        "estimators[0].task_family.type",
        "estimators[1].task_family.type",
        "estimators[1].std",
    }
