"""Splits: the host-side iterator, the arrays on the device, and sampling from them."""

import concurrent.futures
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.tasks.datasets.base import Split, datasets_from, sample_batch


def counting_split(num_examples: int = 10, batch_size: int = 3, seed: int = 0) -> Split:
    return Split(lambda: {"index": np.arange(num_examples)}, batch_size, seed)


def test_an_epoch_shows_no_example_twice_and_drops_the_incomplete_batch() -> None:
    epoch = [batch["index"] for batch in itertools.islice(counting_split(), 3)]
    assert [len(indices) for indices in epoch] == [3, 3, 3]
    assert len(set(np.concatenate(epoch))) == 9


def test_batches_never_end_and_epochs_differ() -> None:
    batches = [batch["index"].tolist() for batch in itertools.islice(counting_split(), 12)]
    assert batches[:3] != batches[3:6]


def test_the_order_is_a_function_of_the_seed() -> None:
    first, again, other = (next(counting_split(seed=seed))["index"].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_concurrent_readers_share_one_sequence() -> None:
    alone, shared = counting_split(), counting_split()
    expected = sorted(next(alone)["index"].tolist() for _ in range(60))
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(lambda _: next(shared)["index"].tolist(), range(60)))
    assert sorted(seen) == expected


def test_nothing_is_loaded_before_it_is_needed_and_a_failure_is_not_remembered() -> None:
    outcomes = [OSError("no file yet"), {"x": np.zeros(4)}]

    def load() -> dict[str, np.ndarray]:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    split = Split(load, batch_size=2)
    with pytest.raises(OSError, match="no file yet"):
        next(split)
    assert next(split)["x"].shape == (2,)
    assert split.arrays["x"].shape == (4,)


def test_a_batch_larger_than_the_split_is_rejected() -> None:
    with pytest.raises(ValueError, match="the split has only 10 examples"):
        next(counting_split(batch_size=11))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        counting_split(batch_size=0)


def test_arrays_that_disagree_on_the_number_of_examples_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"share their leading axis, got lengths \[2, 3\]"):
        next(Split(lambda: {"a": np.zeros(2), "b": np.zeros(3)}, batch_size=1))


def test_arrays_first_used_under_a_trace_outlive_it() -> None:
    split = counting_split()
    jax.jit(lambda key: sample_batch(split.arrays, key, 2))(jax.random.key(0))
    np.testing.assert_array_equal(split.arrays["index"], np.arange(10))


def test_a_sampled_batch_keeps_rows_together_and_depends_on_the_key_alone() -> None:
    arrays = {"a": jnp.arange(50), "b": 2 * jnp.arange(50)}
    sample = jax.jit(sample_batch, static_argnums=2)
    first, again, other = (sample(arrays, jax.random.key(seed), 20) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["b"], 2 * first["a"])
    np.testing.assert_array_equal(first["a"], again["a"])
    assert first["a"].tolist() != other["a"].tolist()


def test_sampling_reaches_every_example() -> None:
    batch = sample_batch(jnp.arange(20), jax.random.key(0), 2000)
    # Each of 20 examples is missed with probability (1 - 1/20)^2000 < 1e-44.
    assert set(batch.tolist()) == set(range(20))


def test_splits_go_by_name() -> None:
    datasets = datasets_from(lambda name: np.full(3, len(name)), batch_size=1)
    assert datasets.split("inner_valid") is datasets.inner_valid
    assert datasets.split("inner_valid").arrays.tolist() == [11, 11, 11]
    with pytest.raises(ValueError, match="the splits are train, inner_valid, outer_valid, test"):
        datasets.split("valid")
