"""Perturbations of theta for evolution strategies.

A perturbation has the structure of theta and includes the std: `noise = std * z`, where z has mean zero and
identity covariance. These two moments suffice for `noise * difference / (2 std^2)` to estimate the gradient
of a quadratic loss; with Gaussian noise it estimates that of the smoothed loss in general. The kinds differ
in variance.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, cast

import jax
import jax.numpy as jnp

from unspool.evolution.repeated_step import joined
from unspool.types import PRNGKey, PyTree, Theta

_LEAST_BYTES = 4

NoiseKind = Literal["gaussian", "rademacher", "sphere"]
"""gaussian: z is standard normal. rademacher: each entry of z is 1 or -1. sphere: z is uniform on the sphere
of radius `sqrt(d)` in all d dimensions of theta. The variance of an estimate is `(d + 1) / n` times the
squared gradient with gaussian noise and n pairs, `(d - 1) / n` with the others."""


@dataclasses.dataclass(frozen=True)
class LeafStds(Mapping[str, float]):
    """A hashable mapping from paths of theta's leaves to standard deviations.

    A path has the form `"layer/w"`. An entry applies to all leaves whose path starts with it; the longest
    matching entry wins, and `""` matches all leaves.
    """

    entries: tuple[tuple[str, float], ...]

    def __getitem__(self, prefix: str) -> float:
        return dict(self.entries)[prefix]

    def __iter__(self) -> Iterator[str]:
        return (prefix for prefix, _ in self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclasses.dataclass(frozen=True)
class Perturbations:
    """The distribution of the noise.

    Attributes:
        std: standard deviation, one for all of theta or by path.
        kind: the distribution of z.
        pairs_per_task: number of perturbations per task.
        orthogonal: whether the perturbations of one task are orthogonal to each other, in blocks of theta's
            dimension. Their norms and marginal distributions do not change.
    """

    std: float | LeafStds = 0.01
    kind: NoiseKind = "gaussian"
    pairs_per_task: int = 1
    orthogonal: bool = False

    def sample(self, theta: Theta, keys: PRNGKey) -> Theta:
        """Return noise for several tasks, leaves `[len(keys) * pairs_per_task, ...]`, ordered by task.

        Args:
            theta: only its shapes and dtypes are used.
            keys: consumed, one per task.
        """
        of_tasks = jax.vmap(lambda key: self.sample_for_task(theta, key))(keys)
        return cast(Theta, joined(of_tasks))

    def sample_for_task(self, theta: Theta, key: PRNGKey) -> Theta:
        """Return noise for one task, leaves `[pairs_per_task, ...]`. Consumes `key`.

        Raises:
            TypeError: a floating-point leaf of theta has 16 bits or less.
        """
        check_precision(theta)
        if self.pairs_per_task == 1:
            directions = jax.tree.map(lambda leaf: leaf[None], self._direction(theta, key))
        elif self.orthogonal:
            directions = self._orthogonal_directions(theta, key)
        else:
            keys = jax.random.split(key, self.pairs_per_task)
            directions = jax.vmap(lambda one: self._direction(theta, one))(keys)
        return jax.tree.map(lambda leaf, std: leaf * std, directions, self.std_of_leaves(theta))

    def std_of_leaves(self, theta: Theta) -> PyTree:
        """Return a float for each leaf of theta.

        Raises:
            ValueError: a leaf matches no entry, or an entry matches no leaf.
        """
        if not isinstance(self.std, LeafStds):
            return jax.tree.map(lambda _: self.std, theta)
        paths = [
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in jax.tree_util.tree_leaves_with_path(theta)
        ]
        for prefix in self.std:
            if not any(path.startswith(prefix) for path in paths):
                raise ValueError(
                    f"std[{prefix!r}] matches no leaf of theta; the leaves are {', '.join(paths)}"
                )
        return jax.tree.unflatten(jax.tree.structure(theta), [self._std_at(path, self.std) for path in paths])

    def _std_at(self, path: str, stds: LeafStds) -> float:
        matching = [prefix for prefix in stds if path.startswith(prefix)]
        if not matching:
            raise ValueError(f'std: no entry for the leaf {path!r} of theta; add one, or "" for all others')
        return stds[max(matching, key=len)]

    def _direction(self, theta: Theta, key: PRNGKey) -> Theta:
        """Return one z with the structure of theta."""
        if self.kind == "rademacher":
            return _per_leaf(jax.random.rademacher, theta, key)
        direction = _per_leaf(jax.random.normal, theta, key)
        if self.kind == "gaussian":
            return direction
        leaves = jax.tree.leaves(direction)
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))
        scale = jnp.sqrt(float(_dimension(theta))) / norm
        return jax.tree.map(lambda leaf: leaf * scale.astype(leaf.dtype), direction)

    def _orthogonal_directions(self, theta: Theta, key: PRNGKey) -> Theta:
        """Return orthogonal z, leaves `[pairs_per_task, ...]`: the orthogonalised rows of a Gaussian matrix.

        The norm of a Gaussian vector is independent of its direction, so the rows keep their norms.
        """
        dimension = _dimension(theta)
        in_block = min(self.pairs_per_task, dimension)
        num_blocks = -(-self.pairs_per_task // in_block)
        rows = jax.random.normal(key, (num_blocks, in_block, dimension))
        norms = jnp.linalg.norm(rows, axis=-1, keepdims=True)
        if self.kind == "sphere":
            norms = jnp.full_like(norms, dimension**0.5)
        columns, triangle = jnp.linalg.qr(jnp.swapaxes(rows, -1, -2))
        # QR by Householder reflections fixes signs that depend on the rows; multiplying by the signs of the
        # diagonal of R makes the distribution of each direction symmetric.
        signs = jnp.sign(jnp.diagonal(triangle, axis1=-2, axis2=-1))[..., None]
        directions = signs * jnp.swapaxes(columns, -1, -2) * norms
        directions = directions.reshape(-1, dimension)[: self.pairs_per_task]
        return _unravelled(theta, directions)


def check_precision(theta: Theta) -> None:
    """Reject a theta whose precision is too low for noise.

    The spacing of bfloat16 numbers near 16 is 1/8, so noise of 0.01 is lost to rounding, and the estimate
    would multiply losses by noise that was never applied.

    Raises:
        TypeError: names the leaf, its dtype and a remedy.
    """
    for path, leaf in jax.tree.leaves_with_path(theta):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < _LEAST_BYTES:
            raise TypeError(
                f"theta{jax.tree_util.keystr(path)} is {dtype}: evolution strategies need a theta of float32 "
                "or float64, because at lower precision the noise is lost to rounding; keep theta in float32 "
                "and cast it where it is used"
            )


def _per_leaf(draw: Callable[..., jax.Array], theta: Theta, key: PRNGKey) -> Theta:
    leaves, treedef = jax.tree.flatten(theta)
    keys = jax.random.split(key, len(leaves))
    drawn = [draw(k, jnp.shape(leaf), jnp.result_type(leaf)) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, drawn)


def _dimension(theta: Theta) -> int:
    return sum(int(jnp.size(leaf)) for leaf in jax.tree.leaves(theta))


def _unravelled(theta: Theta, rows: jax.Array) -> Theta:
    """Return rows `[n, d]` as a pytree like theta with leaves `[n, ...]`."""
    leaves, treedef = jax.tree.flatten(theta)
    ends = list(itertools.accumulate(int(jnp.size(leaf)) for leaf in leaves))
    parts = jnp.split(rows, ends[:-1], axis=1)
    shaped = [
        part.reshape(len(rows), *jnp.shape(leaf)).astype(jnp.result_type(leaf))
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, shaped)
