"""Carried pytrees keep their types."""

import jax
import jax.numpy as jnp

from unspool.stable_types import strongly_typed, typed_like


def test_weak_types_and_python_numbers_become_strong_arrays() -> None:
    tree = strongly_typed({"number": 0.5, "weak": jnp.asarray(1), "strong": jnp.ones(2, jnp.bfloat16)})
    assert [leaf.weak_type for leaf in jax.tree.leaves(tree)] == [False, False, False]
    assert [leaf.dtype for leaf in jax.tree.leaves(tree)] == [jnp.float32, jnp.bfloat16, jnp.int32]


def test_new_style_keys_pass_unchanged() -> None:
    key = jax.random.key(3)
    assert strongly_typed(key) == key
    assert typed_like(key, jax.random.key(4)) == key


def test_a_tree_takes_the_types_of_another() -> None:
    tree = typed_like((jnp.ones(2), jnp.asarray(2.0)), (jnp.zeros(2, jnp.bfloat16), jnp.float32(0)))
    assert [(leaf.dtype, leaf.weak_type) for leaf in tree] == [(jnp.bfloat16, False), (jnp.float32, False)]
