"""Outer updates: from a batch of gradients to the next theta, bit for bit."""

import jax
import numpy as np
import pytest

from learner.errors import CorruptCheckpointError
from learner.state.buffer import BufferedPush
from learner.storage.thetas import Published
from learner.storage.update_record import Effect
from learner.training.outer import OuterLearner
from protos import codec
from tests.learner.builders import EXPERIMENT, SCHEMA, gradient_body
from unspool.types import PyTree

BATCH = 3


@pytest.fixture(scope="module")
def compiled() -> OuterLearner:
    return OuterLearner(EXPERIMENT, BATCH)


@pytest.fixture
def outer(compiled: OuterLearner) -> OuterLearner:
    compiled.initialise()
    return compiled


def push(lane: int, value: float | None, weight: float = 1.0, loss: float = 2.0) -> BufferedPush:
    """Return a push whose gradient has `value` everywhere, or is missing if that is None."""
    leaves = None if value is None else codec.decode(gradient_body(value), SCHEMA)
    return BufferedPush(lane, 1, 0, "w0", 1, weight, loss, leaves, 5, 0.0)


def leaves(theta: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(theta)])


def test_theta_is_a_function_of_the_seed(outer: OuterLearner) -> None:
    first = outer.initialise()
    assert (first.outer_step, first.sha256) == (0, OuterLearner(EXPERIMENT, BATCH).initialise().sha256)


def test_an_update_steps_along_the_weighted_mean_of_the_gradients(outer: OuterLearner) -> None:
    before = leaves(outer.theta())
    outcome = outer.apply(0, [push(0, 1.0, weight=3.0, loss=1.0), push(1, 5.0, weight=1.0, loss=3.0), None])
    moved = leaves(outcome.theta) - before
    np.testing.assert_allclose(moved, -0.1 * 2.0, rtol=1e-5)  # SGD with learning rate 0.1; mean (3 + 5) / 4
    assert (outcome.effect, outcome.loss) == (Effect.MOVED, pytest.approx(1.5))
    assert outcome.grad_norm == pytest.approx(2.0 * np.sqrt(before.size))
    assert outcome.published == Published.of(1, codec.encode(outcome.theta, SCHEMA))


def test_missing_gradients_do_not_change_the_result(outer: OuterLearner) -> None:
    with_gaps = outer.apply(0, [None, push(1, 1.0), push(2, None)])
    outer.initialise()
    alone = outer.apply(0, [push(1, 1.0), None, None])
    assert with_gaps.published == alone.published


def test_an_update_without_any_weight_leaves_theta_and_counts(outer: OuterLearner) -> None:
    before = outer.initialise()
    outcome = outer.apply(0, [None, None, push(2, None)])
    assert (outcome.effect, outcome.loss) == (Effect.EMPTY, None)
    assert (outcome.published.outer_step, outcome.published.sha256) == (1, before.sha256)


def test_an_update_that_would_make_theta_infinite_is_reverted(outer: OuterLearner) -> None:
    before = outer.initialise()
    huge = float(np.finfo(np.float32).max)
    outcome = outer.apply(0, [push(0, huge), push(1, huge), push(2, huge)])
    assert (outcome.effect, outcome.published.sha256) == (Effect.REVERTED, before.sha256)


def test_compiling_in_advance_changes_nothing(outer: OuterLearner) -> None:
    before = outer.initialise()
    outer.warm_up()
    assert Published.of(0, codec.encode(outer.theta(), SCHEMA)) == before


def test_a_restored_learner_continues_with_the_same_bits(outer: OuterLearner) -> None:
    first = outer.apply(0, [push(0, 1.0), None, None])
    second = outer.apply(1, [push(0, 2.0), None, None])
    outer.restore(first.learner_state, first.published)
    assert outer.apply(1, [push(0, 2.0), None, None]).published == second.published


def test_a_state_that_does_not_match_the_published_theta_is_corrupt(outer: OuterLearner) -> None:
    state = outer.apply(0, [push(0, 1.0), None, None]).learner_state
    with pytest.raises(CorruptCheckpointError, match="is not the one that was published"):
        outer.restore(state, Published.of(1, b"another theta"))


def test_a_learner_without_theta_cannot_be_used() -> None:
    with pytest.raises(RuntimeError, match="neither initialised nor restored"):
        OuterLearner(EXPERIMENT, BATCH).theta()
