"""The mean that a relay sends is the mean of what it was sent."""

import ml_dtypes
import numpy as np
import pytest
from jax.random import PRNGKey

from protos import codec
from protos.unspool.v1 import learner_pb2
from tests.unspool.outer_trainers.test_followed_means import LONG, SHORT, WEIGHTS, whole_episodes
from workers.relay.merging import PendingPush, is_mergeable, merged

DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def held(leaves: list[np.ndarray], schema, weight: float, lane: int = 0) -> PendingPush:
    push = learner_pb2.GradientEstimatorOut(lane=lane, seq=1, outer_step=lane, weight=weight)
    return PendingPush("w0", push, codec.encode(leaves, schema), can_merge=True)


def hold_again(push: learner_pb2.GradientEstimatorOut, body: bytes) -> PendingPush:
    return PendingPush("relay", push, body, can_merge=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_mean_is_exact_up_to_one_rounding(dtype):
    draws = np.random.default_rng(0)
    trees = [[draws.normal(size=(5, 2)).astype(dtype), draws.normal(size=3).astype(dtype)] for _ in range(7)]
    weights = draws.uniform(0.5, 40.0, size=7)
    schema = codec.schema_of(trees[0])
    push, body = merged(
        [held(tree, schema, weight) for tree, weight in zip(trees, weights, strict=True)], schema
    )
    for leaf, *parts in zip(codec.decode(body, schema), *trees, strict=True):
        exact = np.average([part.astype(np.float64) for part in parts], axis=0, weights=weights)
        np.testing.assert_array_equal(leaf, exact.astype(dtype))
    assert push.weight == pytest.approx(weights.sum(), rel=1e-15)


def test_a_mean_of_means_is_the_mean_of_everything():
    schema = codec.schema_of([np.zeros(4, np.float32)])
    leaves = [[np.arange(4, dtype=np.float32) * 2**lane] for lane in range(4)]
    all_held = [held(leaf, schema, weight=2.0**lane, lane=lane) for lane, leaf in enumerate(leaves)]
    push, body = merged(all_held, schema)
    nested, nested_body = merged([hold_again(*merged(all_held[:2], schema)), *all_held[2:]], schema)
    assert nested.parts == push.parts
    assert nested.weight == push.weight
    np.testing.assert_allclose(
        codec.decode(nested_body, schema)[0], codec.decode(body, schema)[0], rtol=2.0**-22
    )


def test_a_short_and_a_long_episode_are_merged_into_their_mean():
    """Estimates weigh by their tasks, so a relay changes nothing of which objective is followed."""
    estimator = whole_episodes(1)["FullES"]
    state = estimator.init_worker_state(WEIGHTS, PRNGKey(0))
    outs = [estimator.compute_gradient_estimate(WEIGHTS, PRNGKey(seed), state)[0] for seed in range(12)]
    short, long = ({int(out.inner_steps): out for out in outs}[2 * steps] for steps in (SHORT, LONG))
    schema = codec.schema_of([np.zeros((), np.float32)])
    pushes = [held([np.asarray(out.grad["a"])], schema, float(out.weight)) for out in (short, long)]
    _, body = merged(pushes, schema)
    assert codec.decode(body, schema)[0] == pytest.approx((-1 + (LONG - 2 * SHORT) / LONG) / 2, rel=1e-3)


def test_a_one_hot_of_each_lane_keeps_its_weight():
    schema = codec.schema_of([np.zeros(4, np.float32)])
    _, body = merged(
        [held([np.eye(4, dtype=np.float32)[lane]], schema, 1.0, lane) for lane in range(4)], schema
    )
    assert codec.decode(body, schema)[0].tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("weight", "value", "expected"),
    [(1.0, 1.0, True), (0.0, 1.0, False), (-1.0, 1.0, False), (np.inf, 1.0, False), (1.0, np.nan, False)],
)
def test_only_what_is_finite_and_has_weight_is_merged(weight, value, expected):
    leaves = [np.full(2, value, np.float32)]
    schema = codec.schema_of(leaves)
    push = learner_pb2.GradientEstimatorOut(weight=weight)
    assert is_mergeable(push, codec.encode(leaves, schema), schema) == expected


def test_integers_are_not_averaged():
    leaves = [np.zeros(2, np.int32)]
    schema = codec.schema_of(leaves)
    push = learner_pb2.GradientEstimatorOut(weight=1.0)
    assert not is_mergeable(push, codec.encode(leaves, schema), schema)
