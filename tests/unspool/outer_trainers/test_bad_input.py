"""Systems, tasks and thetas of the wrong form are refused by name, while a program is traced."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.unspool.outer_trainers.examples import EVOLUTION_STRATEGIES, example, weights_of
from tests.unspool.outer_trainers.tiny_tasks import Position
from unspool.learned_optimizers.base import LearnableSGD, LearnedOptimizer
from unspool.optimizers import SGD
from unspool.optimizers.optimizer import Optimizer
from unspool.outer_trainers.gradient_learner import OuterState, WorkerWeights
from unspool.outer_trainers.lopt_truncated_step import SimpleVecLOptTruncatedStep, VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import (
    ResidentData,
    TruncatedStep,
    TruncatedUnrollOut,
    VectorizedTruncatedStep,
)
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule, TruncationSchedule
from unspool.tasks.base import Task, TaskFamily, single_task_to_family
from unspool.tasks.quadratics import FixedDimQuadraticFamily

pytestmark = pytest.mark.unchecked
KEY = jax.random.PRNGKey(0)
THETA = LearnableSGD().init(KEY)
LENGTH = ConstantTruncationSchedule(3)
FAMILY = FixedDimQuadraticFamily(3)


@dataclasses.dataclass(frozen=True)
class System(TruncatedStep):
    """A step that returns what its fields hold."""

    returned: Callable[[Any], Any] = lambda state: (state, OUT)
    initial: Any = None

    def outer_init(self, key: Any) -> Any:
        return {"theta": jnp.zeros(())}

    def init_step_state(self, theta: Any, outer_state: Any, key: Any) -> Any:
        return {"x": jnp.zeros(()), "n": (jnp.int32(0),)} if self.initial is None else self.initial

    def unroll_step(self, theta: Any, unroll_state: Any, key: Any, data: Any, outer_state: Any) -> Any:
        return self.returned(unroll_state)

    def meta_loss_batch(self, theta: Any, unroll_state: Any, key: Any, data: Any, outer_state: Any) -> Any:
        return jnp.zeros(3)


OUT = TruncatedUnrollOut(jnp.zeros(()), jnp.bool_(False), (), jnp.int32(1), jnp.bool_(True))


def lopt_step(**changes: Any) -> VectorizedLOptTruncatedStep:
    options = {"task_family": FAMILY, "learned_opt": LearnableSGD(), "trunc_sched": LENGTH, "num_tasks": 2}
    return VectorizedLOptTruncatedStep(**{**options, **changes})


def step_abstractly(system: Any, method: str = "unroll_step") -> None:
    """Traces one step, and computes nothing."""
    step = VectorizedTruncatedStep(system, 2)
    state = jax.eval_shape(lambda: step.init_step_state({}, None, KEY))
    jax.eval_shape(lambda state: getattr(step, method)({}, state, KEY, ResidentData(()), None), state)


def test_a_system_of_the_right_form_is_accepted() -> None:
    step_abstractly(System())


@pytest.mark.parametrize(
    ("state_after", "message"),
    [
        ({"x": jnp.zeros(3), "n": (jnp.int32(0),)}, r"\['x'\] was float32\[\] and became float32\[3\]"),
        ({"x": jnp.zeros(()), "n": (0.5,)}, r"\['n'\]\[0\] was int32\[\] and became float32\[\]"),
        ({"n": (jnp.int32(0),)}, r"\['x'\] was float32\[\] and became missing"),
        ({"x": jnp.zeros(()), "n": (jnp.int32(0),), "y": 1}, r"\['y'\] was missing and became int32\[\]"),
        ({"x": "far", "n": (jnp.int32(0),)}, r"\['x'\] was float32\[\] and became a str"),
        ({"x": jnp.zeros(()), "n": [jnp.int32(0)]}, " had the structure .* and now has"),
    ],
)
def test_a_state_that_changes_its_form_is_rejected_with_the_leaf(state_after: Any, message: str) -> None:
    with pytest.raises(TypeError, match=rf"System.unroll_step: the state{message}.*must keep"):
        step_abstractly(System(lambda state: (state_after, OUT)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": jnp.zeros(3)}, r"loss is float32\[3\]: it must be one floating-point number.*mean"),
        ({"loss": jnp.int32(1)}, r"loss is int32\[\]"),
        ({"is_done": jnp.int32(0)}, r"is_done is int32\[\]: it must be one bool.*episode's length"),
        ({"is_done": jnp.zeros(2, bool)}, r"is_done is bool\[2\]"),
        ({"mask": jnp.ones(())}, r"mask is float32\[\]: it must be one bool"),
        ({"iteration": jnp.ones(())}, r"iteration is float32\[\]: it must be one integer"),
        ({"iteration": None}, "iteration is a NoneType"),
        ({"task_param": {"name": "mnist"}}, r"task_param is a str, at \['name'\]: .*return \(\)"),
        ({"episode_length": jnp.zeros(2, jnp.int32)}, r"episode_length is int32\[2\]"),
    ],
)
def test_a_report_of_the_wrong_form_is_rejected_with_the_field(change: Any, message: str) -> None:
    with pytest.raises(TypeError, match=rf"System.unroll_step: {message}"):
        step_abstractly(System(lambda state: (state, OUT._replace(**change))))


@pytest.mark.parametrize(
    ("returned", "given"),
    [
        (lambda state: OUT, "a TruncatedUnrollOut"),
        (lambda state: state, "a dict"),
        (lambda state: (state, OUT, 1), r"\(dict, TruncatedUnrollOut, int\)"),
        (lambda state: (state, tuple(OUT)), r"\(dict, tuple\)"),
        (lambda state: None, "a NoneType"),
    ],
)
def test_anything_but_a_state_and_a_report_is_rejected(returned: Callable[[Any], Any], given: str) -> None:
    message = rf"System.unroll_step returned {given}: return \(state, TruncatedUnrollOut"
    with pytest.raises(TypeError, match=message):
        step_abstractly(System(returned))


def test_an_initial_state_that_is_no_pytree_of_arrays_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"System.init_step_state: the state is a str, at \[0\]"):
        step_abstractly(System(initial=("begin",)))


def test_a_meta_loss_that_is_no_number_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"System.meta_loss_batch: the loss is float32\[3\]"):
        step_abstractly(System(), "meta_loss_batch")


# Tasks, families, optimizers and schedules inside a learned optimizer's step.


def train_abstractly(step: VectorizedLOptTruncatedStep) -> None:
    """Traces the beginning and one step, and computes nothing."""
    state = jax.eval_shape(lambda: step.init_step_state(THETA, None, KEY))
    jax.eval_shape(lambda state: step.unroll_step(THETA, state, KEY, step.resident_data(), None), state)


@dataclasses.dataclass(frozen=True)
class BrokenTask(Task):
    """One thing at a time is not as it should be."""

    loss_shape: tuple[int, ...] = ()
    aux: Any = 0.0
    state_after: Any = 0.0
    normalized: Callable[[Any], Any] = lambda loss: loss

    def init_with_state(self, key: Any) -> Any:
        return jnp.zeros(()), jnp.zeros(())

    def loss_with_state_and_aux(self, params: Any, state: Any, key: Any, data: Any) -> Any:
        return jnp.broadcast_to(params, self.loss_shape), self.state_after, {"aux": self.aux}

    def normalizer(self, loss: Any) -> Any:
        return self.normalized(loss)


@pytest.mark.parametrize(
    ("task", "aux_key", "message"),
    [
        (BrokenTask(loss_shape=(4,)), None, r"the loss is float32\[4\]: .*of shape \[\]; .*take its mean"),
        (BrokenTask(loss_shape=(1,)), "aux", r"the loss is float32\[1\]"),
        (BrokenTask(aux=1), "aux", r"aux 'aux' is int32\[\]"),
        (BrokenTask(aux="low"), "aux", "aux 'aux' is a str"),
        (BrokenTask(state_after=None), None, r"the model state was float32\[\] and became missing"),
        (BrokenTask(state_after=1), None, r"the model state was float32\[\] and became int32\[\]"),
    ],
)
def test_a_task_of_the_wrong_form_is_rejected_by_name(task: Task, aux_key: str | None, message: str) -> None:
    step = lopt_step(task_family=single_task_to_family(task), meta_loss_with_aux_key=aux_key)
    with pytest.raises(TypeError, match=rf"BrokenTask: {message}"):
        train_abstractly(step)


def test_a_normalizer_that_changes_the_shape_is_rejected() -> None:
    task = BrokenTask(normalized=lambda loss: loss[None])
    with pytest.raises(TypeError, match=r"BrokenTask.normalizer: the loss is float32\[1\]"):
        train_abstractly(lopt_step(task_family=single_task_to_family(task)))


def test_the_simple_step_refuses_a_loss_that_is_no_number() -> None:
    step = SimpleVecLOptTruncatedStep(BrokenTask(loss_shape=(4,)), LearnableSGD(), num_tasks=2)
    with pytest.raises(TypeError, match=r"BrokenTask: the loss is float32\[4\]"):
        train_abstractly(step)


@dataclasses.dataclass(frozen=True)
class BrokenFamily(TaskFamily):
    """Samples its field."""

    sampled: Any

    def sample(self, key: Any) -> Any:
        return {"width": jnp.ones(()), "other": self.sampled}

    def task_fn(self, task_params: Any) -> Task:
        return Position()


@pytest.mark.parametrize(
    ("sampled", "given"), [("relu", "a str"), (Position(), "a Position"), (jnp.sin, "a ")]
)
def test_a_family_that_samples_anything_but_arrays_is_rejected(sampled: Any, given: str) -> None:
    message = rf"BrokenFamily.sample: .* is {given}.*\['other'\]: it must be a pytree of arrays; keep"
    with pytest.raises(TypeError, match=message):
        train_abstractly(lopt_step(task_family=BrokenFamily(sampled)))


@dataclasses.dataclass(frozen=True)
class BrokenSchedule(TruncationSchedule):
    """Ends episodes with a count, or forgets its state."""

    forgets: bool

    def init(self, key: Any, outer_state: Any) -> Any:
        return LENGTH.init(key, outer_state)

    def next_state(self, state: Any, step: Any, key: Any, outer_state: Any) -> Any:
        return (None, step >= 3) if self.forgets else (state, step)


@pytest.mark.parametrize(
    ("forgets", "message"),
    [(True, r"the state.length was int32\[\] and became missing"), (False, r"is_done is int32\[\]")],
)
def test_a_schedule_of_the_wrong_form_is_rejected_by_name(forgets: bool, message: str) -> None:
    with pytest.raises(TypeError, match=rf"BrokenSchedule.next_state: {message}"):
        train_abstractly(lopt_step(trunc_sched=BrokenSchedule(forgets)))


@dataclasses.dataclass(frozen=True)
class GrowingOptimizer(SGD):
    """Its update gives the parameters an axis that they did not have."""

    def update(self, opt_state: Any, grad: Any, **known: Any) -> Any:
        updated = super().update(opt_state, grad, **known)
        return self.set_params(updated, updated.params[None])


@dataclasses.dataclass(frozen=True)
class LearnedGrowing(LearnedOptimizer):
    """`GrowingOptimizer` as a learned optimizer."""

    def init(self, key: Any) -> Any:
        return THETA

    def opt_fn(self, theta: Any, is_training: bool = False) -> Optimizer:
        return GrowingOptimizer()


def test_an_optimizer_whose_update_changes_the_state_is_rejected_by_name() -> None:
    message = r"GrowingOptimizer.update: the state.params was float32\[3\] and became float32\[1,3\]"
    with pytest.raises(TypeError, match=message):
        train_abstractly(lopt_step(learned_opt=LearnedGrowing()))


def test_an_estimator_refuses_an_integer_theta_without_a_learner() -> None:
    estimator = TruncatedPES(lopt_step())
    weights = WorkerWeights({"depth": jnp.int32(3)}, None, OuterState(jnp.int32(0)))
    with pytest.raises(TypeError, match=r"theta\['depth'\] is int32\[\]"):
        estimator.compute_gradient_estimate(weights, KEY, None)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", EVOLUTION_STRATEGIES)
def test_a_theta_too_coarse_for_noise_is_rejected(name: str, dtype: str) -> None:
    estimator = example(name)
    weights = weights_of(estimator)
    weights = weights._replace(theta=jax.tree.map(lambda leaf: leaf.astype(dtype), weights.theta))
    with pytest.raises(TypeError, match=rf"theta\['\w+'\] is {dtype}: .* keep theta in float32"):
        jax.eval_shape(
            lambda key: estimator.estimate(
                weights, key, estimator.init_worker_state(weights, key), estimator.get_data(), False
            ),
            jax.random.PRNGKey(0),
        )
