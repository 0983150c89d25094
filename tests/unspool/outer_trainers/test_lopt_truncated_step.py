"""Episodes, resets and reported losses of a learned optimizer's truncated step."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from tests.unspool.outer_trainers.tiny_tasks import (
    CountingTask,
    FollowTheData,
    Position,
    ScaledFamily,
    StepsOfTheLength,
)
from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.gradient_learner import OuterState, WorkerWeights
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.tasks.base import single_task_to_family
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import FixedDimQuadraticFamily

THETA = LearnableSGD(0.1).init(jax.random.PRNGKey(0))
FOLLOW = single_task_to_family(FollowTheData())


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


def test_data_on_the_device_differs_between_tasks_and_steps() -> None:
    _, out = run(make(family=single_task_to_family(ImageMLP_Digits8_Relu32()), num_tasks=4), 3)
    assert len(np.unique(out.loss)) == out.loss.size


def after(num_updates: int, target: float) -> float:
    """`(x - target)^2` after updates of x towards the training data's 1, from 0, at learning rate 0.1."""
    return float((1 - 0.8**num_updates - target) ** 2)


@pytest.mark.parametrize(
    ("split", "updates_behind", "target"),
    [
        (None, 0, 1.0),
        ("same_data", 1, 1.0),
        ("train", 1, 1.0),
        ("inner_valid", 1, 2.0),
        ("outer_valid", 1, 3.0),
        ("test", 1, 4.0),
    ],
)
def test_meta_loss_split_sets_when_and_on_which_data_the_loss_is_computed(
    split: str | None, updates_behind: int, target: float
) -> None:
    _, out = run(make(family=FOLLOW, meta_loss_split=split), 6)
    expected = [after(step + updates_behind, target) / 2 for step in range(4)] + [
        0,
        after(updates_behind, target) / 2,
    ]
    np.testing.assert_allclose(out.loss[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("split", [None, "outer_valid"])
def test_batches_from_the_host_give_what_resident_data_gives(split: str | None) -> None:
    step = make(family=FOLLOW, meta_loss_split=split)
    state = step.init_step_state(THETA, None, jax.random.PRNGKey(1))
    batches = jax.tree.map(lambda leaf: leaf[2], step.get_batch(3))
    _, by_hand = step.unroll_step(THETA, state, jax.random.PRNGKey(2), batches, None)
    _, resident = step.unroll_step(THETA, state, jax.random.PRNGKey(2), step.resident_data(), None)
    np.testing.assert_array_equal(by_hand.loss, resident.loss)


@pytest.mark.parametrize(("split", "sign"), [(None, 0.0), ("outer_valid", 0.2)])
def test_an_aux_value_may_be_reported_while_the_loss_is_trained_on(split: str | None, sign: float) -> None:
    _, out = run(make(family=FOLLOW, meta_loss_split=split, meta_loss_with_aux_key="error"), 1)
    np.testing.assert_allclose(out.loss[0], (sign - (1.0 if split is None else 3.0)) / 2, rtol=1e-6)


def test_the_learned_optimizer_trains_on_the_loss_whatever_is_reported() -> None:
    plain, aux = (run(make(family=FOLLOW, meta_loss_with_aux_key=key), 4)[0] for key in (None, "error"))
    np.testing.assert_array_equal(plain.inner_opt_state.params, aux.inner_opt_state.params)


@pytest.mark.parametrize(("key", "expected"), [(None, 9.0 / 2), ("error", -3.0 / 2)])
def test_meta_loss_batch_reports_the_same_quantity_normalized_on_outer_data(
    key: str | None, expected: float
) -> None:
    step = make(family=FOLLOW, outer_data_split="outer_valid", meta_loss_with_aux_key=key)
    state = step.init_step_state(THETA, None, jax.random.PRNGKey(1))
    losses = step.meta_loss_batch(THETA, state, jax.random.PRNGKey(2), step.resident_data(), None)
    np.testing.assert_allclose(losses, [expected] * 2, rtol=1e-6)


def test_an_unknown_aux_key_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'whole'\): FollowTheData reports \['error'\]"):
        run(make(family=FOLLOW, meta_loss_with_aux_key="whole"), 1)


def test_losses_are_normalized_by_the_task_of_their_own_episode() -> None:
    states, out = run(make(family=ScaledFamily(), num_tasks=3), 15)
    raw = np.array([0.8 ** (2 * step) for step in range(4)] + [0.0])
    np.testing.assert_allclose(out.loss, np.tile(raw, 3)[:, None] * states.task_param, rtol=1e-5)
    assert len(np.unique(states.task_param)) == 9


def test_a_model_state_is_carried_from_step_to_step_and_reset_with_the_episode() -> None:
    states, out = run(make(family=single_task_to_family(CountingTask())), 6)
    assert states.inner_opt_state.state["losses"][:, 0].tolist() == [0, 1, 2, 3, 4, 0]
    expected = [step + 0.8 ** (2 * step) for step in range(4)] + [0, 1]
    np.testing.assert_allclose(out.loss[:, 0], expected, rtol=1e-5)


def test_the_loss_after_an_update_sees_the_model_state_and_leaves_it_alone() -> None:
    family = single_task_to_family(CountingTask())
    states, out = run(make(family=family, meta_loss_split="same_data"), 3)
    assert states.inner_opt_state.state["losses"][:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(out.loss[:, 0], [n + 0.8 ** (2 * n) for n in (1, 2, 3)], rtol=1e-5)


def test_a_random_offset_moves_the_counter_and_nothing_else() -> None:
    keys = jax.random.PRNGKey(1)
    plain = make(num_tasks=64).init_step_state(THETA, None, keys)
    offset = make(num_tasks=64, random_initial_iteration_offset=3).init_step_state(THETA, None, keys)
    assert set(offset.inner_step.tolist()) == {0, 1, 2}
    assert offset.inner_step.dtype == plain.inner_step.dtype
    unmoved = offset.replace(inner_step=plain.inner_step)
    jax.tree.map(np.testing.assert_array_equal, unmoved, plain)


def test_only_the_first_episode_is_shortened_by_a_random_offset() -> None:
    states, out = run(make(num_tasks=8, random_initial_iteration_offset=4), 16)
    for task in range(8):
        first, second, third = np.flatnonzero(~out.mask[:, task])[:3]
        assert first == 4 - states.inner_step[0, task]
        assert (second - first, third - second) == (5, 5)


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


def test_an_episode_without_length_is_rejected_where_one_is_needed() -> None:
    with pytest.raises(ValueError, match="episodes without a length"):
        run(make(NeverEndingTruncationSchedule()), 1)


def test_new_lengths_are_drawn_at_each_reset() -> None:
    states, _ = run(make(LogUniformLengthSchedule(2, 9), num_tasks=4), 40)
    assert len(np.unique(states.truncation_state.length)) > 2


def whole_episodes(out: Any, task: int) -> list[tuple[int, set[int]]]:
    """`(valid steps, lengths that these report)` of the episodes of one task that begin with a reset."""
    resets = np.flatnonzero(~out.mask[:, task])
    spans = [slice(begin + 1, end) for begin, end in itertools.pairwise(resets)]
    return [(span.stop - span.start, set(out.episode_length[span, task].tolist())) for span in spans]


def test_every_step_reports_the_length_of_its_own_episode() -> None:
    _, out = run(make(LogUniformLengthSchedule(2, 9), num_tasks=4), 60)
    episodes = [episode for task in range(4) for episode in whole_episodes(out, task)]
    assert len({steps for steps, _ in episodes}) > 2
    assert all(lengths == {steps} for steps, lengths in episodes)


@pytest.mark.parametrize("override", [9, jnp.int32(9)])
def test_the_estimator_may_set_the_length_of_episodes(override: Any) -> None:
    step = make(NeverEndingTruncationSchedule())
    state = step.init_step_state(THETA, None, jax.random.PRNGKey(1), num_steps_override=override)
    _, out = step.unroll_step(
        THETA, state, jax.random.PRNGKey(2), step.resident_data(), None, override_num_steps=override
    )
    assert (out.episode_length.tolist(), out.episode_length.dtype) == ([9, 9], jnp.int32)


def planned(step: VectorizedLOptTruncatedStep, override: int | None, num_steps: int) -> list[float]:
    """What the inner optimizer of one task receives as its episode's length, before each of several steps."""
    theta = step.outer_init(jax.random.PRNGKey(0))
    state = step.init_step_state(theta, None, jax.random.PRNGKey(1), num_steps_override=override)
    lengths = []
    for key in jax.random.split(jax.random.PRNGKey(2), num_steps):
        lengths.append(float(state.inner_opt_state.num_steps[0]))
        state, _ = step.unroll_step(theta, state, key, step.resident_data(), None, False, override)
    return lengths


@pytest.mark.parametrize(("override", "expected"), [(None, 2.0), (6, 6.0)])
def test_the_inner_optimizer_receives_the_length_at_the_start_and_at_a_reset(
    override: int | None, expected: float
) -> None:
    step = VectorizedLOptTruncatedStep(
        single_task_to_family(Position()), StepsOfTheLength(), ConstantTruncationSchedule(2), 2
    )
    assert planned(step, override, num_steps=5) == [expected] * 5


def test_the_length_that_full_es_draws_reaches_the_inner_optimizer() -> None:
    step = VectorizedLOptTruncatedStep(
        single_task_to_family(Position()), StepsOfTheLength(), NeverEndingTruncationSchedule(), 2
    )
    estimator = FullES(step, ConstantTruncationSchedule(20), loss_type="last")
    weights = WorkerWeights(step.outer_init(jax.random.PRNGKey(0)), None, OuterState(jnp.int32(0)))
    state = estimator.init_worker_state(weights, jax.random.PRNGKey(1))
    out, _ = estimator.compute_gradient_estimate(weights, jax.random.PRNGKey(2), state)
    assert out.mean_loss == 19 * 20
