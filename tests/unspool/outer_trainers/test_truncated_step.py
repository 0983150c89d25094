"""Episodes, resets and reported losses of a learned optimizer's truncated step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.tasks.base import Task, single_task_to_family
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import FixedDimQuadraticFamily, FixedDimQuadraticFamilyData
from unspool.types import Aux, Batch, Params, PRNGKey

THETA = LearnableSGD(0.1).init(jax.random.PRNGKey(0))


def make(
    schedule: Any = None, num_tasks: int = 2, family: Any = None, **options: Any
) -> VectorizedLOptTruncatedStep:
    schedule = ConstantTruncationSchedule(4) if schedule is None else schedule
    family = FixedDimQuadraticFamily(3) if family is None else family
    return VectorizedLOptTruncatedStep(family, LearnableSGD(0.1), schedule, num_tasks, **options)


def run(step: VectorizedLOptTruncatedStep, num_steps: int, **options: Any) -> Any:
    """States before, and outputs, of a run by hand; leaves `[num_steps, num_tasks, ...]`."""
    state = step.init_step_state(THETA, None, jax.random.PRNGKey(1))
    advance = jax.jit(lambda state, key: step.unroll_step(THETA, state, key, step.resident_data(), None))
    states, outs = [], []
    for key in jax.random.split(jax.random.PRNGKey(2), num_steps):
        states.append(state)
        state, out = advance(state, key)
        outs.append(out)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states), jax.tree.map(
        lambda *leaves: np.stack(leaves), *outs
    )


def test_an_episode_of_length_l_is_l_steps_and_a_masked_reset() -> None:
    _, out = run(make(), 10)
    assert out.mask[:, 0].tolist() == [True] * 4 + [False] + [True] * 4 + [False]
    assert out.is_done[:, 0].tolist() == [False, False, False, True, False] * 2
    assert out.iteration[:, 0].tolist() == [1, 2, 3, 4, 0] * 2


def test_the_first_loss_of_an_episode_is_that_of_its_initialisation() -> None:
    states, out = run(make(), 6)
    params, target = states.inner_opt_state.params, states.task_param
    np.testing.assert_allclose(out.loss[0], np.sum((target[0] - params[0]) ** 2, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(out.loss[5], np.sum((target[5] - params[5]) ** 2, axis=-1), rtol=1e-5)


def test_a_reset_draws_a_new_task_and_reports_nothing() -> None:
    states, out = run(make(), 6)
    assert np.all(out.loss[4] == 0)
    assert not np.any(states.task_param[5] == states.task_param[4])


def test_tasks_reset_independently_of_each_other() -> None:
    _, out = run(make(num_tasks=8, random_initial_iteration_offset=4), 9)
    resets_at = np.argmin(out.mask, axis=0)
    assert len(set(resets_at.tolist())) > 1
    assert np.all((~out.mask).sum(axis=0) >= 1)


def test_same_data_reports_the_loss_after_the_update() -> None:
    states, out = run(make(meta_loss_split="same_data"), 3)
    params, target = states.inner_opt_state.params, states.task_param
    np.testing.assert_allclose(out.loss[0], np.sum((target[0] - params[1]) ** 2, axis=-1), rtol=1e-5)


@pytest.mark.parametrize("split", ["train", "inner_valid", "outer_valid", "test"])
def test_a_split_reports_a_finite_loss_on_other_data(split: str) -> None:
    digits = single_task_to_family(ImageMLP_Digits8_Relu32())
    plain, fresh = (run(make(family=digits, meta_loss_split=s), 3)[1] for s in (None, split))
    assert np.all(np.isfinite(fresh.loss))
    assert not np.any(fresh.loss == plain.loss)


def test_data_on_the_device_differs_between_tasks_and_steps() -> None:
    _, out = run(make(family=single_task_to_family(ImageMLP_Digits8_Relu32()), num_tasks=4), 3)
    assert len(np.unique(out.loss)) == out.loss.size


def test_batches_from_the_host_may_be_stepped_by_hand() -> None:
    step = make(family=FixedDimQuadraticFamilyData(3))
    state = step.init_step_state(THETA, None, jax.random.PRNGKey(1))
    batch = jax.tree.map(lambda leaf: leaf[0], step.get_batch(5))
    _, out = step.unroll_step(THETA, state, jax.random.PRNGKey(2), batch, None)
    assert np.all(np.isfinite(out.loss))


@dataclasses.dataclass(frozen=True)
class AuxTask(Task):
    """Trains on one thing and reports another."""

    def init(self, key: PRNGKey) -> Params:
        return jax.random.normal(key, (3,))

    def loss_and_aux(self, params: Params, key: PRNGKey, data: Batch) -> tuple[jax.Array, Aux]:
        return jnp.sum(params**2), {"half": jnp.sum(params**2) / 2}


def test_an_aux_value_may_be_reported_instead_of_the_loss() -> None:
    family = single_task_to_family(AuxTask())
    _, loss = run(make(family=family), 3)
    _, aux = run(make(family=family, meta_loss_with_aux_key="half"), 3)
    np.testing.assert_allclose(aux.loss, loss.loss / 2, rtol=1e-6)


def test_an_unknown_aux_key_is_refused_with_the_known_ones() -> None:
    step = make(family=single_task_to_family(AuxTask()), meta_loss_with_aux_key="whole")
    with pytest.raises(ValueError, match=r"whole.*half"):
        run(step, 1)


def test_a_reset_is_computed_only_when_some_task_is_done() -> None:
    step = make()
    state = step.init_step_state(THETA, None, jax.random.PRNGKey(1))

    def both_signs(state: Any) -> Any:
        def one_side(state: Any) -> Any:
            return step.unroll_step(THETA, state, jax.random.PRNGKey(2), step.resident_data(), None)

        return jax.vmap(one_side)(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state))

    jaxpr = jax.make_jaxpr(both_signs)(state)
    conds = [eqn for eqn in all_equations(jaxpr.jaxpr) if eqn.primitive.name == "cond"]
    assert conds
    assert all(eqn.invars[0].aval.shape == () for eqn in conds)


def all_equations(jaxpr: Any) -> Any:
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from all_equations(inner)


def test_an_episode_without_length_is_refused_where_one_is_needed() -> None:
    with pytest.raises(ValueError, match="episodes without a length"):
        run(make(NeverEndingTruncationSchedule()), 1)


def test_new_lengths_are_drawn_at_each_reset() -> None:
    states, _ = run(make(LogUniformLengthSchedule(2, 9), num_tasks=4), 40)
    assert len(np.unique(states.truncation_state.length)) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tasks": 0}, "num_tasks=0"),
        ({"meta_loss_split": "training"}, "meta_loss_split='training'"),
        ({"outer_data_split": "all"}, "outer_data_split='all'"),
        ({"random_initial_iteration_offset": -1}, "must not be negative"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_a_vectorized_step_needs_a_task() -> None:
    with pytest.raises(ValueError, match="num_tasks=0"):
        VectorizedTruncatedStep(None, 0)  # type: ignore[arg-type]
