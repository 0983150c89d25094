"""The calls that the two tutorials make, in our own words: code written for them must run against
`unspool`."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool import eval_training, optimizers, training
from unspool.learned_optimizers import base as lopt_base
from unspool.learned_optimizers import mlp_lopt
from unspool.optimizers import base as opt_base
from unspool.outer_trainers import (
    common,
    full_es,
    gradient_learner,
    lopt_truncated_step,
    truncated_grad,
    truncated_pes,
    truncated_step,
    truncation_schedule,
)
from unspool.outer_trainers.gradient_learner import (
    GradientEstimatorOut,
    GradientEstimatorState,
    WorkerWeights,
)
from unspool.tasks import base as tasks_base
from unspool.tasks import quadratics
from unspool.tasks.fixed import image_mlp

pytestmark = pytest.mark.optimized

KEY = jax.random.PRNGKey(0)


def weights_for(theta: Any) -> WorkerWeights:
    return WorkerWeights(theta=theta, theta_model_state=None, outer_state=gradient_learner.OuterState(0))


def test_what_the_tutorials_import_is_there() -> None:
    modules = (common, truncated_step, mlp_lopt, optimizers, eval_training, tasks_base)
    assert all(inspect.ismodule(module) for module in modules)
    assert GradientEstimatorOut._fields[:4] == ("mean_loss", "grad", "unroll_state", "unroll_info")
    assert GradientEstimatorState is not None
    assert image_mlp.ImageMLP_FashionMnist8_Relu32 is not None


def part3_functions(task: Any, schedule: Any) -> tuple[Any, Any]:
    """The tutorial's hand-written training step with resets: `(init, step)`."""
    opt = opt_base.Adam(3e-3)

    def start(key: jax.Array) -> Any:
        key, params_key, schedule_key = jax.random.split(key, 3)
        return opt.init(task.init(params_key)), schedule.init(schedule_key, None), key

    def train(state_and_batch: Any) -> Any:
        (opt_state, schedule_state, key), batch = state_and_batch
        schedule_state, is_done = schedule.next_state(schedule_state, opt_state.iteration, key, None)
        params = opt.get_params(opt_state)
        key, loss_key = jax.random.split(key)
        loss, grad = jax.value_and_grad(task.loss)(params, loss_key, batch)
        return (opt.update(opt_state, grad, loss=loss), schedule_state, key), is_done, loss

    def reset(state_and_batch: Any) -> Any:
        (_, _, key), _ = state_and_batch
        key, schedule_key = jax.random.split(key)
        return (opt.init(task.init(key)), schedule.init(schedule_key, None), key), False, jnp.nan

    def step(state: Any, is_done: Any, batch: Any) -> Any:
        return jax.lax.cond(is_done, reset, train, (state, batch))

    return start, step


def test_part_3_trains_by_hand_with_resets() -> None:
    task = image_mlp.ImageMLP_Digits8_Relu32()
    start, step = part3_functions(task, truncation_schedule.ConstantTruncationSchedule(50))
    state, is_done, losses = start(KEY), False, []
    step = jax.jit(step)
    for _ in range(120):
        state, is_done, loss = step(state, is_done, next(task.datasets.train))
        losses.append(float(loss))
    assert np.flatnonzero(np.isnan(losses)).tolist() == [51, 103]
    assert losses[50] < losses[0]


def test_part_3_breaks_the_lock_step_by_faking_iterations() -> None:
    task, num_tasks = image_mlp.ImageMLP_Digits8_Relu32(), 4
    start, step = part3_functions(task, truncation_schedule.ConstantTruncationSchedule(50))
    opt_state, schedule_state, keys = jax.vmap(start)(jax.random.split(KEY, num_tasks))
    opt_state = opt_state._replace(iteration=jax.random.randint(KEY, [num_tasks], 0, 50))
    states, is_done, losses = (opt_state, schedule_state, keys), jnp.zeros([num_tasks], bool), []
    update = jax.jit(jax.vmap(step))
    for _ in range(60):
        states, is_done, loss = update(states, is_done, training.vec_get_batch(task, num_tasks))
        losses.append(loss)
    first_reset = np.argmax(np.isnan(np.asarray(losses)), axis=0)
    assert len(set(first_reset.tolist())) == num_tasks


def test_part_3_builds_full_es_from_a_task_family() -> None:
    lopt = lopt_base.LearnableAdam()
    estimator = full_es.FullES(
        task_family=quadratics.FixedDimQuadraticFamily(10), learned_opt=lopt, num_tasks=4, unroll_length=100
    )
    weights = weights_for(lopt.init(KEY))
    state = estimator.init_worker_state(weights, key=KEY)
    out, metrics = estimator.compute_gradient_estimate(weights, key=KEY, state=state, with_summary=False)
    assert jax.tree.leaves(state) == []
    assert set(out.grad) == {"log_lr", "one_minus_beta1", "one_minus_beta2", "log_epsilon"}
    assert metrics


def test_part_3_builds_pes_from_a_task_family() -> None:
    lopt = lopt_base.LearnableAdam()
    estimator = truncated_pes.TruncatedPES(
        task_family=quadratics.FixedDimQuadraticFamily(10),
        learned_opt=lopt,
        trunc_sched=truncation_schedule.LogUniformLengthSchedule(min_length=100, max_length=1000),
        num_tasks=4,
        trunc_length=50,
        random_initial_iteration_offset=1000,
    )
    weights = weights_for(lopt.init(KEY))
    state = estimator.init_worker_state(weights, key=KEY)
    out, _ = estimator.compute_gradient_estimate(weights, key=KEY, state=state, with_summary=False)
    before = state.pos_state.inner_step
    advanced = np.asarray(out.unroll_state.pos_state.inner_step - before)
    assert np.all((advanced == 50) | (out.unroll_state.pos_state.inner_step < 50))


def test_part_4_prints_the_structure_of_a_pes_state() -> None:
    step = lopt_truncated_step.VectorizedLOptTruncatedStep(
        quadratics.FixedDimQuadraticFamily(10),
        lopt_base.LearnableAdam(),
        truncation_schedule.ConstantTruncationSchedule(10),
        num_tasks=3,
        random_initial_iteration_offset=10,
    )
    estimator = truncated_pes.TruncatedPES(truncated_step=step, trunc_length=10)
    weights = weights_for(step.outer_init(KEY))
    shapes = str(
        jax.tree_util.tree_map(lambda leaf: leaf.shape, estimator.init_worker_state(weights, key=KEY))
    )
    unroll = (
        "TruncatedUnrollState(inner_opt_state=OptaxState(params=(3, 10), state=None, "
        "optax_opt_state=(ScaleByAdamState(count=(3,), mu=(3, 10), nu=(3, 10)), EmptyState()), "
        "iteration=(3,)), inner_step=(3,), truncation_state=ConstantTruncationState(length=(3,)), "
        "task_param=(3, 10), is_done=(3,))"
    )
    accumulator = "{'log_epsilon': (3,), 'log_lr': (3,), 'one_minus_beta1': (3,), 'one_minus_beta2': (3,)}"
    assert shapes == f"PESWorkerState(pos_state={unroll}, neg_state={unroll}, accumulator={accumulator})"


@pytest.mark.usefixtures("golden_prng")
def test_part_4_continues_a_pes_unroll_and_prints_its_progress() -> None:
    step = lopt_truncated_step.VectorizedLOptTruncatedStep(
        quadratics.FixedDimQuadraticFamily(10),
        lopt_base.LearnableAdam(),
        truncation_schedule.ConstantTruncationSchedule(10),
        num_tasks=3,
        random_initial_iteration_offset=10,
    )
    estimator = truncated_pes.TruncatedPES(truncated_step=step, trunc_length=10)
    key = jax.random.PRNGKey(1)
    weights = weights_for(step.outer_init(key))
    state = estimator.init_worker_state(weights, key=key)
    printed = []
    for _ in range(2):
        out, _ = estimator.compute_gradient_estimate(weights, key=key, state=state, with_summary=False)
        state = out.unroll_state
        printed.append(state.pos_state.inner_step.tolist())
    assert printed == [[1, 8, 3], [0, 7, 2]]


@pytest.mark.promoting
def test_part_4_backpropagates_through_a_truncation() -> None:
    step = lopt_truncated_step.VectorizedLOptTruncatedStep(
        quadratics.FixedDimQuadraticFamily(10),
        lopt_base.LearnableAdam(),
        truncation_schedule.ConstantTruncationSchedule(10),
        num_tasks=3,
        random_initial_iteration_offset=10,
    )
    estimator = truncated_grad.TruncatedGrad(truncated_step=step, unroll_length=5, steps_per_jit=5)
    weights = weights_for(step.outer_init(KEY))
    out, _ = estimator.compute_gradient_estimate(
        weights, key=KEY, state=estimator.init_worker_state(weights, key=KEY), with_summary=False
    )
    assert float(out.grad["log_lr"]) < 0
