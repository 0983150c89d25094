"""What holds for every task and every family of the library."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.unspool.tasks.examples import FAMILIES, SAMPLED_TASKS, TASKS, batch_of
from unspool.tasks.base import Task, TaskFamily

pytestmark = pytest.mark.with_x64

every_task = pytest.mark.parametrize("task", [*TASKS, *SAMPLED_TASKS], ids=lambda task: task.name)
every_configured_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def assert_trees_close(left: object, right: object) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), left, right)


@every_task
def test_initial_parameters_are_a_function_of_the_key(task: Task) -> None:
    first, again, other = (jax.tree.leaves(task.init(jax.random.key(seed))) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@every_task
def test_both_styles_of_key_give_the_same_task(task: Task) -> None:
    new_style, old_style = jax.random.key(3), jax.random.PRNGKey(3)
    new, old = task.init(new_style), task.init(old_style)
    assert_trees_close(new, old)
    assert task.loss(new, new_style, batch_of(task)) == task.loss(old, old_style, batch_of(task))


@every_task
def test_loss_is_a_function_of_parameters_key_and_batch(task: Task) -> None:
    params = task.init(jax.random.key(0))
    losses = [task.loss(params, jax.random.key(5), batch_of(task)) for _ in range(2)]
    assert losses[0] == losses[1]
    assert losses[0].shape == ()


@every_task
def test_loss_and_gradient_are_finite_at_initialisation(task: Task) -> None:
    params = task.init(jax.random.key(0))
    loss, grad = jax.value_and_grad(task.loss)(params, jax.random.key(1), batch_of(task))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, grad)))
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(grad))


@every_task
def test_jit_computes_what_eager_evaluation_does(task: Task) -> None:
    params = task.init(jax.random.key(0))
    eager = jax.value_and_grad(task.loss)(params, jax.random.key(1), batch_of(task))
    jitted = jax.jit(jax.value_and_grad(task.loss))(params, jax.random.key(1), batch_of(task))
    assert_trees_close(jitted, eager)


@every_task
def test_vmap_computes_what_a_loop_does(task: Task) -> None:
    keys = jax.random.split(jax.random.key(4), 3)
    batch = batch_of(task)

    def first_loss(key: jax.Array) -> jax.Array:
        return task.loss(task.init(key), key, batch)

    batched, single = jax.jit(jax.vmap(first_loss))(keys), jax.jit(first_loss)
    np.testing.assert_allclose(batched, [single(key) for key in keys], rtol=2e-5)


@every_task
def test_all_forms_of_the_loss_agree(task: Task) -> None:
    arguments = (jax.random.key(1), batch_of(task))
    params, state = task.init_with_state(jax.random.key(0))
    loss = task.loss(params, *arguments)
    assert task.loss_with_state(params, state, *arguments) == (loss, state)
    assert task.loss_and_aux(params, *arguments)[0] == loss
    assert task.loss_with_state_and_aux(params, state, *arguments)[:2] == (loss, state)


@every_configured_task
def test_equal_configurations_are_equal_and_pickle(task: Task) -> None:
    batch_of(task)  # data that has been read must not become part of the task
    twin = pickle.loads(pickle.dumps(task))
    assert twin == task
    assert hash(twin) == hash(task)
    assert len(pickle.dumps(task)) < 1000


@every_family
def test_samples_are_a_function_of_the_key(family: TaskFamily) -> None:
    assert_trees_close(family.sample(jax.random.key(1)), family.sample(jax.random.key(1)))


@every_family
def test_tasks_of_a_family_batch(family: TaskFamily) -> None:
    batch = batch_of(family)

    def first_loss(key: jax.Array) -> jax.Array:
        sample_key, init_key, loss_key = jax.random.split(key, 3)
        task = family.task_fn(family.sample(sample_key))
        return task.loss(task.init(init_key), loss_key, batch)

    keys = jax.random.split(jax.random.key(2), 4)
    batched, single = jax.jit(jax.vmap(first_loss))(keys), jax.jit(first_loss)
    np.testing.assert_allclose(batched, [single(key) for key in keys], rtol=2e-5)
    assert len(set(batched.tolist())) == 4


@every_family
def test_equal_families_are_equal_and_pickle(family: TaskFamily) -> None:
    twin = pickle.loads(pickle.dumps(family))
    assert twin == family
    assert hash(twin) == hash(family)


@pytest.mark.parametrize(
    ("task", "worst"),
    [(TASKS[-1], 1.5 * np.log(10)), (SAMPLED_TASKS[1], 1000.0)],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("loss", [-1e30, 0.0, 2.0, 1e30, np.inf, -np.inf, np.nan])
def test_normalizers_bound_any_loss(task: Task, worst: float, loss: float) -> None:
    normalized = task.normalizer(jnp.float32(loss))
    assert 0.0 <= normalized <= np.float32(worst)
    assert not np.isnan(loss) or normalized == np.float32(worst)
