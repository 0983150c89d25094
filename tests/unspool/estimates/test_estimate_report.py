"""What estimates report: inner steps, metrics and counts."""

import jax.numpy as jnp
import numpy as np

from unspool.estimates.backpropagation import MeanGradient
from unspool.estimates.estimate_report import differentiated_estimate, es_estimate, is_inner_step
from unspool.evolution.loss_difference import Policy, Sides, loss_difference
from unspool.outer_trainers.truncated_step import TruncatedUnrollOut

POLICY = Policy("mask", None, None)
GRADIENT = {"w": jnp.array([1.0, -3.0]), "b": jnp.float32(-2.0)}
# The first task ends its episode at the third step and resets at the fourth; the second one does not end.
OUT = TruncatedUnrollOut(
    loss=jnp.arange(8.0).reshape(4, 2),
    is_done=jnp.array([[False, False], [False, False], [True, False], [False, False]]),
    task_param=(),
    iteration=jnp.array([[1, 7], [2, 8], [3, 9], [0, 10]], jnp.int32),
    mask=jnp.array([[True, True], [True, True], [True, True], [False, True]]),
)


def test_only_a_step_that_resets_is_no_inner_step() -> None:
    assert is_inner_step(OUT).tolist() == [[1, 1], [1, 1], [1, 1], [0, 1]]
    without_a_loss = OUT._replace(mask=jnp.zeros((4, 2), bool), iteration=jnp.ones((4, 2), jnp.int32))
    assert np.all(is_inner_step(without_a_loss) == 1)


def test_an_estimate_of_pairs_counts_both_members() -> None:
    sides = Sides.of_pair(OUT.loss.at[1, 1].set(jnp.nan), jnp.zeros((4, 2)))
    difference = loss_difference(sides, OUT.mask, OUT.is_done, None, POLICY)
    out, metrics = es_estimate(GRADIENT, difference, "next", OUT, with_summary=False)  # type: ignore[arg-type]
    assert (int(out.inner_steps), float(out.weight), int(out.diverged_tasks)) == (14, 1.0, 1)
    assert out.unroll_state == "next"
    # Of the first task, whose differences are 0, 2 and 4.
    assert (float(out.mean_loss), float(metrics["delta_loss"])) == (1.0, 2.0)
    assert {name: float(value) for name, value in metrics.items()} == {
        "inner_step": 5.0,
        "finished_tasks": 1.0,
        "diverged_tasks": 1.0,
        "delta_loss": 2.0,
        "clipped_differences": 0.0,
    }


def test_a_summary_holds_the_size_of_each_leaf_of_the_gradient() -> None:
    counts = jnp.array([True, False])
    mean = MeanGradient(GRADIENT, jnp.float32(3.0), counts, ~counts, None)
    out, metrics = differentiated_estimate(mean, "next", OUT, is_inner_step(OUT), with_summary=True)  # type: ignore[arg-type]
    assert (float(metrics["grad_abs_mean['w']"]), float(metrics["grad_abs_mean['b']"])) == (2.0, 2.0)
    assert (float(out.mean_loss), float(out.weight), int(out.inner_steps)) == (3.0, 1.0, 7)
    assert int(out.diverged_tasks) == 1
