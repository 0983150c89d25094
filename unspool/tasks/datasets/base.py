"""Data sets on the device: a host-side iterator for notebooks, pure sampling for scans."""

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import jax
import numpy as np

from unspool.config.arguments import check_whole_number
from unspool.types import Batch, PRNGKey, PyTree

SPLITS: Final = ("train", "inner_valid", "outer_valid", "test")


class Split(Iterator[Batch]):
    """The examples of one split, in two independent forms.

    `next(split)` returns shuffled batches without end, epoch after epoch, as numpy arrays. The sequence is
    the same in each process, and calls are thread-safe. `split.arrays` is the whole split on the device, for
    `sample_batch` inside jitted code.

    Args:
        load: Returns the split as a pytree of numpy arrays with one leading axis of examples. Called on first
            use, and again after a failure.
        batch_size: Examples per batch; at most the size of the split.
        seed: Seed of the order of examples in `next`.
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
        """The whole split as numpy arrays with one leading axis of examples."""
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
        """The whole split on the default device, transferred on first use."""
        # The first use may be under a trace, and tracers must not remain in this cache.
        with jax.ensure_compile_time_eval():
            return jax.device_put(self.host_arrays)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with self._lock:
            if self._batches is None:
                self._batches = _shuffled_batches(self.host_arrays, self.batch_size, self._seed)
            return next(self._batches)

    def peek(self) -> Batch:
        """Return a batch like those of `next`, without consuming one."""
        return jax.tree.map(lambda leaf: leaf[: self.batch_size], self.host_arrays)


def sample_batch(arrays: PyTree, key: PRNGKey, batch_size: int) -> Batch:
    """Return `batch_size` examples drawn uniformly, with replacement, from `arrays`. Pure; consumes `key`.

    Args:
        arrays: A pytree of arrays with one leading axis of examples, as `Split.arrays`.
        key: Chooses the examples.
        batch_size: Leading axis of the result; static under jit.
    """
    indices = jax.random.randint(key, (batch_size,), 0, _num_examples(arrays))
    return jax.tree.map(lambda leaf: leaf.at[indices].get(mode="promise_in_bounds"), arrays)


class Stream(Iterator[Batch]):
    """A thread-safe wrapper of a user's iterator of batches.

    Args:
        batches: An iterator of batches, pytrees of arrays of equal shapes, preferably endless.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._lock = threading.Lock()
        self._first: list[Batch] = []
        self.taken = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with self._lock:
            batch = self._first.pop() if self._first else next(self._batches)
            self.taken += 1
            return batch

    def peek(self) -> Batch:
        """Return the next batch without consuming it.

        Raises:
            StopIteration: there is none.
        """
        with self._lock:
            if not self._first:
                self._first.append(next(self._batches))
            return self._first[0]


class Datasets:
    """The four splits of a data set.

    `train` is for inner training, `inner_valid` for validation by an inner optimizer, `outer_valid` for
    meta-losses and model selection, `test` for reports.

    A split is either a `Split`, which is on the device and sampled there by key, or any iterator of batches.
    Batches of an iterator are streamed: each process takes them in the order in which it needs them, so theta
    is not a function of the seed.

    Args:
        train: a `Split` or an iterator of batches.
        inner_valid: as above.
        outer_valid: as above.
        test: as above.
        extra_info: Other properties of the data, such as `num_classes`.
        abstract_batch: Shapes and dtypes of a training batch, as `jax.ShapeDtypeStruct`; derived from the
            data if None.

    Raises:
        TypeError: a split is neither a `Split` nor an iterator.
    """

    def __init__(
        self,
        train: Iterator[Batch],
        inner_valid: Iterator[Batch],
        outer_valid: Iterator[Batch],
        test: Iterator[Batch],
        extra_info: Mapping[str, Any] | None = None,
        abstract_batch: PyTree = None,
    ) -> None:
        given = {"train": train, "inner_valid": inner_valid, "outer_valid": outer_valid, "test": test}
        self._splits = {name: _as_split(name, batches) for name, batches in given.items()}
        self.extra_info: Mapping[str, Any] = MappingProxyType(dict(extra_info or {}))
        self._abstract_batch = abstract_batch

    @property
    def train(self) -> Split | Stream:
        """The split for inner training."""
        return self._splits["train"]

    @property
    def inner_valid(self) -> Split | Stream:
        """The split for validation by an inner optimizer."""
        return self._splits["inner_valid"]

    @property
    def outer_valid(self) -> Split | Stream:
        """The split for meta-losses and model selection."""
        return self._splits["outer_valid"]

    @property
    def test(self) -> Split | Stream:
        """The split for reports."""
        return self._splits["test"]

    def split(self, name: str) -> Split | Stream:
        """Return the split `name`.

        Raises:
            ValueError: there is no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"Datasets.split({name!r}): the splits are {', '.join(SPLITS)}")
        return self._splits[name]

    def resident(self, names: Iterable[str]) -> dict[str, Split] | None:
        """Return the splits `names` if all of them are on the device, else None."""
        resident = {name: split for name in names if isinstance(split := self.split(name), Split)}
        return resident if len(resident) == len(set(names)) else None

    def next_batches(self, name: str, number: int, owner: str) -> list[Batch]:
        """Take `number` batches of the split `name` as host arrays; errors name `owner`.

        Raises:
            EndOfDataError: the split's iterator has ended.
        """
        split = self.split(name)
        try:
            return [next(split) for _ in range(number)]
        except StopIteration:
            raise _ended(split, name, owner) from None

    @property
    def abstract_batch(self) -> PyTree:
        """The shapes and dtypes of a training batch; consumes no batch.

        Raises:
            EndOfDataError: they were not given, and the training split's iterator has ended.
        """
        if self._abstract_batch is not None:
            return self._abstract_batch
        try:
            batch = self.train.peek()
        except StopIteration:
            raise _ended(self.train, "train", "Datasets.abstract_batch") from None
        return jax.eval_shape(lambda: batch)


class EndOfDataError(ValueError):
    """An iterator of batches ended before training finished."""


def stacked(batches: Sequence[Batch], what: str) -> Batch:
    """Return the batches stacked as numpy leaves `[len(batches), ...]`.

    Raises:
        ValueError: the batches differ in structure or shapes; `what` names their owner.
    """
    shapes = {str(jax.tree.map(np.shape, batch)) for batch in batches}
    if len(shapes) > 1:
        raise ValueError(
            f"{what}: batches have different shapes, {' and '.join(sorted(shapes))}; let its iterator drop a "
            "batch that is incomplete"
        )
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


def _as_split(name: str, batches: Any) -> Split | Stream:
    if isinstance(batches, Split | Stream):
        return batches
    if isinstance(batches, Iterator):
        return Stream(batches)
    is_function = callable(batches) and not isinstance(batches, type)
    remedy = "call it" if is_function else "iter(...) makes an iterator of a list"
    raise TypeError(
        f"Datasets({name}={type(batches).__name__}): it must be an iterator of batches, or a Split; {remedy}"
    )


def _ended(split: Split | Stream, name: str, owner: str) -> EndOfDataError:
    taken = split.taken if isinstance(split, Stream) else 0
    return EndOfDataError(
        f"the data of {owner}: the iterator of the split {name!r} ended after {taken} batches; let it "
        "restart when it ends (itertools.cycle of a list, a generator with `while True`), or give a Split, "
        "which never ends"
    )


def datasets_from(
    load_split: Callable[[str], PyTree],
    batch_size: int,
    extra_info: Mapping[str, Any] | None = None,
) -> Datasets:
    """Return `Datasets` whose splits are loaded on first use by `load_split(name)`."""
    splits = {
        name: Split(functools.partial(load_split, name), batch_size, seed) for seed, name in enumerate(SPLITS)
    }
    return Datasets(**splits, extra_info=extra_info)


def _num_examples(arrays: PyTree) -> int:
    """Return the length of the leading axis, which must be the same for all of `arrays`."""
    lengths = {leaf.shape[0] for leaf in jax.tree.leaves(arrays)}
    if len(lengths) != 1:
        raise ValueError(f"arrays of one split must share their leading axis, got lengths {sorted(lengths)}")
    (length,) = lengths
    return int(length)


def _shuffled_batches(arrays: PyTree, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield batches without end; each epoch is a new permutation without its incomplete last batch."""
    generator = np.random.default_rng(seed)
    num_examples = _num_examples(arrays)
    while True:
        order = generator.permutation(num_examples)
        for start in range(0, num_examples - batch_size + 1, batch_size):
            indices = order[start : start + batch_size]
            yield jax.tree.map(lambda leaf, indices=indices: leaf[indices], arrays)
