"""Learning curves of whole inner problems."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.eval_training import Curves, multi_task_training_curves, single_task_training_curves
from unspool.learned_optimizers.base import LearnableSGD
from unspool.optimizers.base import SGD, Adam
from unspool.tasks.base import Task
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import FixedDimQuadraticFamily, FixedDimQuadraticFamilyData, QuadraticTask

KEY = jax.random.key(0)


def multi(**options: Any) -> Curves:
    learned_opt = LearnableSGD(initial_lr=0.1)
    defaults = {"n_tasks": 3, "steps": 12, "eval_every": 5, "key": KEY}
    family = options.pop("task_family", FixedDimQuadraticFamily(4))
    return multi_task_training_curves(family, learned_opt, learned_opt.init(KEY), **{**defaults, **options})


@pytest.fixture(scope="module")
def quadratic_curves() -> Curves:
    return multi()


def test_a_curve_of_gradient_descent_is_the_known_one() -> None:
    curves = single_task_training_curves(QuadraticTask(4), SGD(0.1), num_steps=10, key=KEY, eval_every=4)
    # (1 - 2 * 0.1)^2 of the loss is left after each update.
    np.testing.assert_allclose(
        curves["train/loss"], curves["train/loss"][0] * 0.64 ** np.arange(10), rtol=1e-4
    )
    assert curves["train/xs"].tolist() == list(range(10))


def test_evaluations_are_of_the_parameters_at_xs_and_the_last_are_final() -> None:
    curves = single_task_training_curves(QuadraticTask(4), SGD(0.1), num_steps=10, key=KEY, eval_every=4)
    assert curves["eval/xs"].tolist() == [0, 4, 8, 10]
    for split in ("train", "outer_valid", "test"):
        expected = curves["train/loss"][0] * 0.64 ** curves["eval/xs"]
        np.testing.assert_allclose(curves[f"eval/{split}/loss"], expected, rtol=1e-4)


@dataclasses.dataclass(frozen=True)
class CountingTask(Task):
    """Counts losses in its model state and reports the count as its loss."""

    def init_with_state(self, key: Any) -> Any:
        return jnp.zeros(()), jnp.zeros(())

    def loss_with_state_and_aux(self, params: Any, state: Any, key: Any, data: Any) -> Any:
        return state + 0.0 * params, state + 1.0, {"is_key_new": jax.random.uniform(key)}

    def normalizer(self, loss: Any) -> Any:
        return -loss


def test_every_update_and_no_other_is_counted_and_carries_the_model_state() -> None:
    curves = single_task_training_curves(CountingTask(), SGD(), num_steps=7, key=KEY, eval_every=3)
    assert curves["train/loss"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert curves["eval/test/loss"].tolist() == [0, 3, 6, 7]


def test_losses_are_also_reported_normalized() -> None:
    curves = single_task_training_curves(CountingTask(), SGD(), num_steps=7, key=KEY, eval_every=3)
    assert curves["train/norm_loss"].tolist() == [0, -1, -2, -3, -4, -5, -6]
    assert curves["eval/test/norm_loss"].tolist() == [0, -3, -6, -7]
    assert curves["eval/test/loss_normalized"].tolist() == [0, -3, -6, -7]


def test_no_two_losses_share_a_key() -> None:
    curves = single_task_training_curves(
        CountingTask(), SGD(), num_steps=4, key=KEY, eval_every=1, eval_batches=1, last_eval_batches=1
    )
    draws = np.concatenate(
        [curves[f"eval/{split}/aux/is_key_new"] for split in ("train", "outer_valid", "test")]
    )
    assert len(set(draws.tolist())) == 15


def test_another_task_can_be_evaluated() -> None:
    curves = single_task_training_curves(
        QuadraticTask(4),
        SGD(),
        num_steps=2,
        key=KEY,
        eval_task=FixedDimQuadraticFamily(4).task_fn(jnp.ones(4)),
    )
    assert curves["eval/train/loss"][0] != curves["train/loss"][0]


def test_a_classifier_learns_the_digits() -> None:
    task = ImageMLP_Digits8_Relu32()
    curves = single_task_training_curves(
        task, Adam(1e-2), num_steps=150, key=KEY, eval_every=75, device=jax.devices()[0]
    )
    assert curves["eval/test/loss"].shape == (3,)
    assert 2.0 < curves["eval/test/loss"][0] < 4.0
    assert curves["eval/test/loss"][-1] < 0.6


def test_curves_of_a_family_lead_with_the_tasks(quadratic_curves: Curves) -> None:
    assert {name: curve.shape for name, curve in quadratic_curves.items()} == {
        "train/xs": (3, 12),
        "train/loss": (3, 12),
        "train/norm_loss": (3, 12),
        "eval/xs": (3, 4),
        "eval/train/loss": (3, 4),
        "eval/train/norm_loss": (3, 4),
    }
    assert quadratic_curves["eval/xs"][1].tolist() == [0, 5, 10, 12]
    assert len(set(quadratic_curves["train/loss"][:, 0].tolist())) == 3


@pytest.mark.parametrize("steps_per_jit", [1, 7, 100])
def test_how_steps_are_compiled_changes_no_value(quadratic_curves: Curves, steps_per_jit: int) -> None:
    curves = multi(steps_per_jit=steps_per_jit)
    for name, curve in quadratic_curves.items():
        np.testing.assert_allclose(curves[name], curve, rtol=1e-5)


def test_curves_are_a_function_of_the_key(quadratic_curves: Curves) -> None:
    np.testing.assert_array_equal(multi()["train/loss"], quadratic_curves["train/loss"])
    assert (multi(key=jax.random.key(1))["train/loss"] != quadratic_curves["train/loss"]).all()
    np.testing.assert_array_equal(multi(key=None, seed=0)["train/loss"], quadratic_curves["train/loss"])


def test_a_seed_beside_a_key_is_rejected() -> None:
    with pytest.raises(ValueError, match="give either a seed or a key"):
        multi(seed=1)


@pytest.mark.parametrize("option", ["eval_every", "steps_per_jit", "n_eval_batches", "steps"])
def test_numbers_below_one_are_rejected(option: str) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        multi(**{option: 0})


def test_given_tasks_are_trained() -> None:
    curves = multi(task_params=jnp.full((3, 4), 1000.0))
    assert (curves["train/loss"][:, 0] > 1e6).all()


def test_evaluation_can_be_limited_to_the_end() -> None:
    curves = multi(eval_just_at_end=True, splits=("train", "test"))
    assert curves["eval/xs"].tolist() == [[12], [12], [12]]
    assert curves["eval/test/loss"].shape == (3, 1)


def test_aux_values_are_reported_by_name() -> None:
    family = FixedDimQuadraticFamilyData(4)
    curves = multi(task_family=family, with_aux_values=("l2",), splits=("test",))
    assert [name for name in curves if "aux" in name] == ["eval/test/aux/l2"]
    with pytest.raises(ValueError, match=r"no aux value 'l3', it reports \['l1', 'l2'\]"):
        multi(task_family=family, with_aux_values=("l3",))
