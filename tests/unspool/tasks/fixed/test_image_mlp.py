"""Classifiers of small images, against a network in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.tasks.fixed.image_mlp import ImageMLP, ImageMLP_Digits8_Relu32

KEY = jax.random.PRNGKey(0)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -np.log(shares[np.arange(len(labels)), labels])


def test_the_loss_is_the_mean_cross_entropy_of_a_relu_network() -> None:
    task = ImageMLP("Digits", 8, (5, 4), batch_size=3)
    params = jax.tree.map(lambda leaf: leaf + 0.1, task.init(KEY))
    images, labels = np.random.default_rng(0).normal(size=(3, 8, 8, 1)), np.array([7, 0, 7])
    hidden = images.reshape(3, 64)
    for index in range(3):
        layer = params[f"mlp/~/linear_{index}"]
        hidden = hidden @ np.asarray(layer["w"]) + np.asarray(layer["b"])
        hidden = np.maximum(hidden, 0) if index < 2 else hidden
    loss = task.loss(params, KEY, {"image": jnp.asarray(images), "label": jnp.asarray(labels)})
    np.testing.assert_allclose(loss, cross_entropy(hidden, labels).mean(), rtol=1e-5)


def test_the_name_has_data_size_and_widths() -> None:
    assert ImageMLP("Mnist", 14, (32, 16)).name == "ImageMLP_Mnist14_Relu32x16"
    assert ImageMLP_Digits8_Relu32().name == "ImageMLP_Digits8_Relu32"


def test_digits_have_one_size() -> None:
    with pytest.raises(ValueError, match=r"image_size=16\): the digits have image_size 8 and no other"):
        _ = ImageMLP("Digits", 16, (32,)).datasets


@pytest.mark.parametrize(("field", "value"), [("data", "Cifar10"), ("image_size", 0), ("batch_size", 0)])
def test_a_field_out_of_range_is_rejected_by_name(field: str, value: object) -> None:
    fields = {"data": "Digits", "image_size": 8, "hidden_sizes": (32,), "batch_size": 4, field: value}
    with pytest.raises(ValueError, match=rf"ImageMLP\({field}="):
        ImageMLP(**fields)
