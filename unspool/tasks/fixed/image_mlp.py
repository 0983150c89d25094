"""Image classification by multilayer perceptrons, a standard small inner problem."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import haiku as hk
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from unspool.config.arguments import check_choice, check_whole_number, refusal
from unspool.tasks.base import Task, softmax_cross_entropy
from unspool.tasks.datasets.base import Datasets
from unspool.tasks.datasets.digits import digits_datasets
from unspool.tasks.datasets.idx import fashion_mnist_datasets, mnist_datasets
from unspool.types import Batch, Params, PRNGKey, Scalar

_NUM_CLASSES = 10
_CHANNELS = 1


def _digits(batch_size: int, image_size: tuple[int, int]) -> Datasets:
    if image_size != (8, 8):
        raise ValueError(
            f"ImageMLP(data='Digits', image_size={image_size[0]}): the digits have image_size 8 and no other"
        )
    return digits_datasets(batch_size)


_DATASETS: Final[Mapping[str, Callable[[int, tuple[int, int]], Datasets]]] = MappingProxyType(
    {"Digits": _digits, "FashionMnist": fashion_mnist_datasets, "Mnist": mnist_datasets}
)


@dataclasses.dataclass(frozen=True)
class ImageMLP(Task):
    """Classify small grey images of ten classes with a relu MLP, under the mean cross entropy of the batch.

    The normalizer clips to [0, 1.5 ln 10] and maps NaN to the upper bound, 1.5 times the loss of uniform
    predictions.

    Args:
        data: `Digits`, `FashionMnist` or `Mnist`.
        image_size: Height and width to which images are resized, in pixels.
        hidden_sizes: Widths of the hidden layers.
        batch_size: Examples per batch.
    """

    data: str
    image_size: int
    hidden_sizes: tuple[int, ...]
    batch_size: int = 128

    def __post_init__(self) -> None:
        check_choice(self, "data", _DATASETS)
        check_whole_number(self, "image_size")
        check_whole_number(self, "batch_size")
        widths = self.hidden_sizes
        if not isinstance(widths, tuple) or not all(type(width) is int and width >= 1 for width in widths):
            raise refusal(self, "hidden_sizes", "hidden_sizes must be a tuple of widths of at least 1")

    @property
    def name(self) -> str:
        widths = "x".join(str(width) for width in self.hidden_sizes)
        return f"ImageMLP_{self.data}{self.image_size}_Relu{widths}"

    @property
    def datasets(self) -> Datasets:
        return _DATASETS[self.data](self.batch_size, (self.image_size, self.image_size))

    def init(self, key: PRNGKey) -> Params:
        return self._network.init(key, jnp.zeros((1, self.image_size**2 * _CHANNELS)))

    def loss(self, params: Params, key: PRNGKey, data: Batch) -> Scalar:
        image = data["image"]
        logits = self._network.apply(params, image.reshape(image.shape[0], -1))
        labels = jax.nn.one_hot(data["label"], _NUM_CLASSES)
        return jnp.mean(softmax_cross_entropy(logits=logits, labels=labels))

    def normalizer(self, loss: Scalar) -> Scalar:
        worst = 1.5 * math.log(_NUM_CLASSES)
        return jnp.nan_to_num(jnp.clip(loss, 0.0, worst), nan=worst)

    @property
    def _network(self) -> hk.Transformed:
        def forward(images: ArrayLike) -> jax.Array:
            logits: jax.Array = hk.nets.MLP([*self.hidden_sizes, _NUM_CLASSES])(images)
            return logits

        return hk.without_apply_rng(hk.transform(forward))


def ImageMLP_Digits8_Relu32() -> ImageMLP:  # noqa: N802 (configurations use this name)
    """One hidden layer of 32 on scikit-learn's digits; batches of 64, for only 1,149 training examples."""
    return ImageMLP(data="Digits", image_size=8, hidden_sizes=(32,), batch_size=64)


def ImageMLP_FashionMnist8_Relu32() -> ImageMLP:  # noqa: N802
    """One hidden layer of 32 on Fashion-MNIST resized to 8x8; batches of 128."""
    return ImageMLP(data="FashionMnist", image_size=8, hidden_sizes=(32,), batch_size=128)


def ImageMLP_Mnist8_Relu32() -> ImageMLP:  # noqa: N802
    """One hidden layer of 32 on MNIST resized to 8x8; batches of 128."""
    return ImageMLP(data="Mnist", image_size=8, hidden_sizes=(32,), batch_size=128)
