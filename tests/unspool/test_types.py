"""While the library's tests run, its annotations are checked."""

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from tests.checked_types import is_checked
from unspool.learned_optimizers.base import LearnableSGD
from unspool.learned_optimizers.features import update_momenta
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule

pytestmark = pytest.mark.skipif(
    not is_checked("unspool.learned_optimizers.base"), reason="unspool was imported without checks"
)


def test_arrays_whose_shapes_do_not_fit_each_other_are_rejected() -> None:
    with pytest.raises(TypeCheckError, match=r"whilst checking the parameters of .*update_momenta"):
        update_momenta(jnp.zeros((2, 3)), jnp.zeros(4), (0.1, 0.9))


@pytest.mark.parametrize("key", [jnp.zeros(2), 0])
def test_what_is_no_key_is_rejected(key: jax.Array) -> None:
    with pytest.raises(TypeCheckError, match="parameter 'key'"):
        LearnableSGD().init(key)


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")])
def test_keys_of_either_style_are_keys(key: jax.Array) -> None:
    assert jnp.isfinite(LearnableSGD().init(key)["log_lr"])


def test_a_leaf_that_is_no_array_is_rejected() -> None:
    with pytest.raises(TypeCheckError, match="parameter 'theta'"):
        LearnableSGD().opt_fn({"log_lr": "fast"})


@pytest.mark.unchecked
def test_a_test_of_bad_input_reaches_the_librarys_own_checks() -> None:
    _, is_done = ConstantTruncationSchedule(3).next_state((), [4], None, None)
    assert is_done
