"""Losses, gradients and normalizers against values of the reference implementation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.tasks.base import Task
from unspool.tasks.fixed.image_mlp import ImageMLP_Digits8_Relu32
from unspool.tasks.quadratics import FixedDimQuadraticFamily, FixedDimQuadraticFamilyData, QuadraticTask

pytestmark = pytest.mark.optimized

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "tasks.npz"


@pytest.fixture(scope="module")
def golden() -> Mapping[str, np.ndarray]:
    return dict(np.load(GOLDEN))


def assert_loss_and_gradient(
    golden: Mapping[str, np.ndarray], name: str, task: Task, params: Any, data: Any
) -> None:
    loss, grad = jax.value_and_grad(task.loss)(params, jax.random.key(0), data)
    np.testing.assert_allclose(loss, golden[f"{name}/loss"], rtol=1e-5)
    for path, leaf in jax.tree.leaves_with_path(grad):
        expected = golden[f"{name}/grad{jax.tree_util.keystr(path)}"]
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-7)


def test_quadratic(golden: Mapping[str, np.ndarray]) -> None:
    params = golden["QuadraticTask10/params"]
    assert_loss_and_gradient(golden, "QuadraticTask10", QuadraticTask(10), params, ())


def test_quadratic_family(golden: Mapping[str, np.ndarray]) -> None:
    name = "FixedDimQuadraticFamily10"
    task = FixedDimQuadraticFamily(10).task_fn(golden[f"{name}/task_param"])
    assert_loss_and_gradient(golden, name, task, golden[f"{name}/params"], ())


def test_quadratic_family_with_data(golden: Mapping[str, np.ndarray]) -> None:
    name = "FixedDimQuadraticFamilyData10"
    task = FixedDimQuadraticFamilyData(10).task_fn(golden["FixedDimQuadraticFamily10/task_param"])
    assert_loss_and_gradient(golden, name, task, golden[f"{name}/params"], jnp.asarray([0.5]))


def test_image_mlp(golden: Mapping[str, np.ndarray]) -> None:
    name = "ImageMLP8_relu32"
    params = {
        module: {leaf: golden[f"{name}/params['{module}']['{leaf}']"] for leaf in ("w", "b")}
        for module in ("mlp/~/linear_0", "mlp/~/linear_1")
    }
    data = {"image": golden["batch/image"], "label": golden["batch/label"]}
    assert_loss_and_gradient(golden, name, ImageMLP_Digits8_Relu32(), params, data)


def test_image_mlp_normalizer(golden: Mapping[str, np.ndarray]) -> None:
    normalized = jax.vmap(ImageMLP_Digits8_Relu32().normalizer)(golden["normalizer_in"])
    np.testing.assert_allclose(normalized, golden["ImageMLP8_relu32/normalizer_out"], rtol=1e-6)


def test_quadratic_normalizer_differs_from_the_reference_in_taking_nan_for_the_worst(
    golden: Mapping[str, np.ndarray],
) -> None:
    name = "FixedDimQuadraticFamilyData10"
    task = FixedDimQuadraticFamilyData(10).task_fn(jnp.zeros(10))
    expected = np.nan_to_num(golden[f"{name}/normalizer_out"], nan=1000.0)
    np.testing.assert_array_equal(jax.vmap(task.normalizer)(golden[f"{name}/normalizer_in"]), expected)
