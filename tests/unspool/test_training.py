"""Batches of batches."""

import jax
import numpy as np
import pytest

from unspool import training
from unspool.optimizers.base import Adam, OptState
from unspool.tasks.base import single_task_to_family
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import BatchQuadraticTask, FixedDimQuadraticFamily
from unspool.types import Batch


def test_leading_axes_count_steps_and_tasks() -> None:
    batches = training.get_batches(ImageMLP_Digits8_Relu32(), (3, 2), split="outer_valid")
    assert jax.tree.map(np.shape, batches) == {"image": (3, 2, 64, 8, 8, 1), "label": (3, 2, 64)}
    assert isinstance(batches["label"], jax.Array)


def test_each_task_gets_a_batch_of_its_own_in_numpy_arrays_on_request() -> None:
    family = single_task_to_family(ImageMLP_Digits8_Relu32())
    batch = training.vec_get_batch(family, 2, numpy=True)
    assert isinstance(batch["label"], np.ndarray)
    assert batch["label"][0].tolist() != batch["label"][1].tolist()


def test_batches_need_not_be_dictionaries() -> None:
    assert training.vec_get_batch(BatchQuadraticTask(), 5).shape == (5, 4, 2)


def test_a_family_without_data_has_empty_batches() -> None:
    assert training.vec_get_batch(FixedDimQuadraticFamily(), 5) == ()


def test_no_batches_at_all_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"batch_shape=\(0, 2\)\): every axis must be at least 1"):
        training.get_batches(BatchQuadraticTask(), (0, 2))


def test_an_unknown_split_is_rejected() -> None:
    with pytest.raises(ValueError, match="the splits are train, inner_valid"):
        training.get_batches(BatchQuadraticTask(), (1,), split="validation")


def test_the_loop_of_the_tutorial_runs() -> None:
    task, opt = ImageMLP_Digits8_Relu32(), Adam(3e-3)

    @jax.jit
    @jax.vmap
    def update(opt_state: OptState, key: jax.Array, batch: Batch) -> tuple[OptState, jax.Array]:
        loss, grad = jax.value_and_grad(task.loss)(opt.get_params(opt_state), key, batch)
        return opt.update(opt_state, grad, loss=loss), loss

    keys = jax.random.split(jax.random.PRNGKey(0), 2)
    opt_state = jax.vmap(lambda key: opt.init(task.init(key)))(keys)
    opt_state = opt_state._replace(iteration=jax.random.randint(keys[0], [2], 0, 50))
    losses = []
    for _ in range(60):
        opt_state, loss = update(opt_state, keys, training.vec_get_batch(task, 2))
        losses.append(loss)
    assert (losses[-1] < 0.8 * losses[0]).all()
