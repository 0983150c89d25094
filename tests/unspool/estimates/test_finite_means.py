import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.estimates.finite_means import all_finite, pairwise_sum, stays_finite, weighted_means


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_pairwise_sum_is_the_sum_of_all_terms(count: int) -> None:
    assert pairwise_sum([jnp.float32(2**index) for index in range(count)]) == 2**count - 1


def test_a_pairwise_sum_adds_halves_and_not_one_term_after_the_other() -> None:
    terms = [jnp.float32(term) for term in (1e8, 1.0, -1e8, 1.0)]  # 1 is lost beside 1e8
    assert pairwise_sum(terms) == np.float32(1e8 + 1.0) + np.float32(-1e8 + 1.0)
    many = np.full(4096, 0.1, np.float32)
    exact = 4096 * np.float64(np.float32(0.1))
    in_turn = np.add.accumulate(many)[-1]
    assert abs(float(pairwise_sum(list(jnp.asarray(many)))) - exact) < abs(in_turn - exact) / 10


def mean(values: list[float], weights: list[float]) -> float:
    leaves, given = ([jnp.float32(one) for one in row] for row in (values, weights))
    average, total = weighted_means(leaves, given)
    assert float(total) == sum(weights)
    return float(average)


def test_a_weighted_mean_is_that_of_numpy() -> None:
    assert mean([1.0, 5.0, -2.0], [3.0, 1.0, 0.5]) == pytest.approx(
        np.average([1.0, 5.0, -2.0], weights=[3.0, 1.0, 0.5])
    )


def test_a_value_of_weight_zero_may_be_anything() -> None:
    assert mean([np.nan, 2.0, np.inf], [0.0, 4.0, 0.0]) == 2.0


def test_a_mean_without_weight_is_zero() -> None:
    assert mean([np.nan, 7.0], [0.0, 0.0]) == 0.0


def test_leaves_of_any_shape_have_their_means_elementwise() -> None:
    leaves = [jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 6.0]])]
    found, _ = weighted_means(leaves, [jnp.float32(1), jnp.float32(3)])
    np.testing.assert_allclose(found, [[2.5, 5.0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_found_in_a_tree(bad: float) -> None:
    tree = {"a": jnp.zeros(3), "b": (jnp.int32(7), 1.0)}
    assert all_finite(tree)
    assert not all_finite({**tree, "c": jnp.array([[0.0, bad]])})


def test_integers_and_keys_cannot_be_infinite() -> None:
    assert all_finite({"count": jnp.arange(3), "key": jax.random.key(0), "flag": jnp.bool_(True)})
    assert all_finite({})


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([0.0, np.inf], [1.0, np.inf], True),
        ([0.0, np.inf], [1.0, np.nan], True),
        ([0.0, np.inf], [np.inf, 0.0], False),
        ([0.0, 1.0], [0.0, np.nan], False),
    ],
)
def test_only_numbers_that_were_finite_have_to_stay_so(
    before: list[float], after: list[float], expected: bool
) -> None:
    assert bool(stays_finite({"x": jnp.array(before)}, {"x": jnp.array(after)})) is expected
