"""Data sets that live on the device: a host-side iterator for notebooks, pure sampling for scans."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import jax
import numpy as np

from unspool.arguments import check_whole_number
from unspool.types import Batch, PRNGKey, PyTree

SPLITS: Final = ("train", "inner_valid", "outer_valid", "test")


class Split(Iterator[Batch]):
    """The examples of one split, in two forms that do not disturb each other.

    `next(split)` gives shuffled batches for ever, epoch after epoch, as numpy arrays: the same sequence in
    each process, and safe to call from several threads. `split.arrays` is the whole split on the device, for
    `sample_batch` inside jitted code.

    Args:
        load: Returns the split as a pytree of numpy arrays with one leading axis of examples. Called on first
            use and again after a failure, so nothing is read or allocated before it is needed.
        batch_size: Examples in each batch; not more than the split has.
        seed: Seed of the order in which `next` walks through the examples.
    """

    def __init__(self, load: Callable[[], PyTree], batch_size: int, seed: int = 0) -> None:
        self.batch_size = batch_size
        check_whole_number(self, "batch_size")
        self._load = load
        self._seed = seed
        self._batches: Iterator[Batch] | None = None
        self._lock = threading.Lock()

    @functools.cached_property
    def host_arrays(self) -> PyTree:
        """The whole split as numpy arrays, one leading axis of examples."""
        arrays = self._load()
        num_examples = _num_examples(arrays)
        if num_examples < self.batch_size:
            raise ValueError(
                f"Split(batch_size={self.batch_size}): the split has only {num_examples} examples; "
                "choose a smaller batch_size"
            )
        return arrays

    @functools.cached_property
    def arrays(self) -> PyTree:
        """The whole split on the default device, put there on first use."""
        # The first use may be under a trace, whose tracers must not outlive it in this cache.
        with jax.ensure_compile_time_eval():
            return jax.device_put(self.host_arrays)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with self._lock:
            if self._batches is None:
                self._batches = _shuffled_batches(self.host_arrays, self.batch_size, self._seed)
            return next(self._batches)


def sample_batch(arrays: PyTree, key: PRNGKey, batch_size: int) -> Batch:
    """Draw `batch_size` examples uniformly, with replacement, from `arrays`; pure, and consumes `key`.

    Args:
        arrays: A pytree of arrays with one leading axis of examples, as `Split.arrays`.
        key: Chooses the examples.
        batch_size: Leading axis of the result, hence static under jit.
    """
    indices = jax.random.randint(key, (batch_size,), 0, _num_examples(arrays))
    return jax.tree.map(lambda leaf: leaf.at[indices].get(mode="promise_in_bounds"), arrays)


@dataclasses.dataclass(frozen=True, eq=False)
class Datasets:
    """The four splits of a data set.

    Inner training reads `train`; `inner_valid` is for what an inner optimizer may look at, `outer_valid` for
    meta-losses and model selection, `test` for reports.
    """

    train: Split
    inner_valid: Split
    outer_valid: Split
    test: Split
    extra_info: Mapping[str, Any] = dataclasses.field(default_factory=lambda: MappingProxyType({}))

    def split(self, name: str) -> Split:
        """Return the split called `name`.

        Raises:
            ValueError: there is no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"Datasets.split({name!r}): the splits are {', '.join(SPLITS)}")
        split: Split = getattr(self, name)
        return split


def datasets_from(
    load_split: Callable[[str], PyTree],
    batch_size: int,
    extra_info: Mapping[str, Any] = MappingProxyType({}),
) -> Datasets:
    """Return `Datasets` whose splits are loaded, each when first used, by `load_split(name)`."""
    splits = {
        name: Split(functools.partial(load_split, name), batch_size, seed) for seed, name in enumerate(SPLITS)
    }
    return Datasets(**splits, extra_info=extra_info)


def _num_examples(arrays: PyTree) -> int:
    """Return the length of the leading axis that all of `arrays` must share."""
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(arrays)}
    if len(lengths) != 1:
        raise ValueError(f"arrays of one split must share their leading axis, got lengths {sorted(lengths)}")
    (length,) = lengths
    return int(length)


def _shuffled_batches(arrays: PyTree, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield batches for ever; each epoch is a fresh permutation without its incomplete last batch."""
    generator = np.random.default_rng(seed)
    num_examples = _num_examples(arrays)
    while True:
        order = generator.permutation(num_examples)
        for start in range(0, num_examples - batch_size + 1, batch_size):
            indices = order[start : start + batch_size]
            yield jax.tree.map(lambda leaf, indices=indices: leaf[indices], arrays)
