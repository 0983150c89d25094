"""Systems written by hand: the documented example, the three ways to end an episode, and their data."""

import dataclasses
import re
import textwrap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unspool.outer_trainers import truncated_step
from unspool.outer_trainers.gradient_learner import OuterState, WorkerWeights
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import (
    EpisodesInExpectation,
    ResidentData,
    TruncatedStep,
    TruncatedUnrollOut,
    VectorizedTruncatedStep,
    with_a_reset_step,
)

KEY = jax.random.PRNGKey(0)


def documented_system() -> Any:
    """An instance of the class that `TruncatedStep`'s docstring shows."""
    lines = textwrap.dedent(str(TruncatedStep.__doc__).partition("\n")[2])
    (code,) = re.findall(r"^    class Decay.*?\n(?=\n\S)", lines, re.DOTALL | re.MULTILINE)
    names = {"jax": jax, "jnp": jnp, **vars(truncated_step)}
    exec(textwrap.dedent(code), names)  # the documentation is ours
    return names["Decay"]()


def unroll(step: VectorizedTruncatedStep, theta: Any, num_steps: int) -> TruncatedUnrollOut:
    """Outputs of steps by hand, leaves `[num_steps, num_tasks]`."""
    data = step.resident_data() or ResidentData(())
    state = step.init_step_state(theta, None, KEY)

    def one_step(state: Any, key: Any) -> Any:
        return step.unroll_step(theta, state, key, data, None)

    out: TruncatedUnrollOut = jax.lax.scan(one_step, state, jax.random.split(KEY, num_steps))[1]
    return out


def test_the_documented_system_takes_exactly_its_length() -> None:
    out = unroll(VectorizedTruncatedStep(documented_system(), 2), {"log_rate": jnp.log(0.5)}, 40)
    assert np.flatnonzero(out.is_done[:, 0]).tolist() == [19, 39]
    assert np.all(out.mask)
    np.testing.assert_allclose(out.loss[:20, 0], 0.25 ** np.arange(1, 21), rtol=1e-4)
    np.testing.assert_array_equal(out.loss[20:], out.loss[:20])


def test_an_estimator_unrolls_the_documented_system() -> None:
    estimator = TruncatedPES(VectorizedTruncatedStep(documented_system(), 8), 5, steps_per_jit=5)
    weights = WorkerWeights(estimator.truncated_step.outer_init(KEY), None, OuterState(jnp.int32(0)))
    out, _ = estimator.compute_gradient_estimate(weights, KEY, estimator.init_worker_state(weights, KEY))
    assert out.weight == 8
    assert out.grad["log_rate"] < 0


@dataclasses.dataclass(frozen=True)
class DataSystem(TruncatedStep):
    """Its loss is the datum of the step."""

    resident: bool

    def outer_init(self, key: Any) -> Any:
        return {}

    def init_step_state(self, theta: Any, outer_state: Any, key: Any) -> Any:
        return jnp.int32(0)

    def unroll_step(self, theta: Any, unroll_state: Any, key: Any, data: Any, outer_state: Any) -> Any:
        loss = data.arrays[unroll_state] if self.resident else data
        step = unroll_state + 1
        return step, TruncatedUnrollOut(loss, jnp.bool_(False), (), step, jnp.bool_(True))

    def get_batch(self, steps: int) -> Any:
        return None if self.resident else jnp.arange(1.0, steps + 1)

    def resident_data(self) -> ResidentData | None:
        return ResidentData(jnp.arange(1.0, 5.0)) if self.resident else None

    def meta_loss_batch(self, theta: Any, unroll_state: Any, key: Any, data: Any, outer_state: Any) -> Any:
        return data.arrays[unroll_state] if self.resident else data


def test_resident_data_is_shared_by_all_tasks() -> None:
    out = unroll(VectorizedTruncatedStep(DataSystem(resident=True), 2), {}, 4)
    assert out.loss.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]


def test_streamed_data_has_one_slice_for_each_step_and_task() -> None:
    step = VectorizedTruncatedStep(DataSystem(resident=False), 2)
    batches = step.get_batch(3)
    assert batches.tolist() == [[1, 1], [2, 2], [3, 3]]
    _, out = step.unroll_step({}, step.init_step_state({}, None, KEY), KEY, batches[1], None)
    assert out.loss.tolist() == [2, 2]
    assert step.get_batch().tolist() == [1, 1]


@pytest.mark.parametrize("resident", [True, False])
def test_meta_loss_batch_is_mapped_over_tasks(resident: bool) -> None:
    step = VectorizedTruncatedStep(DataSystem(resident), 2)
    data = step.resident_data() if resident else step.get_batch()
    losses = step.meta_loss_batch({}, step.init_step_state({}, None, KEY), KEY, data, None)
    assert losses.tolist() == [1, 1]


def test_a_system_without_data_has_none_and_without_a_meta_loss_raises() -> None:
    step = VectorizedTruncatedStep(documented_system(), 2)
    assert (step.get_batch(3), step.resident_data(), step.label()) == (None, ResidentData(()), "Decay")
    with pytest.raises(NotImplementedError, match=r"Decay has no meta_loss_batch; choose an objective"):
        step.meta_loss_batch({}, step.init_step_state({}, None, KEY), KEY, None, None)


END_OF_EPISODE: dict[str, Callable[[Any, Any], tuple[Any, Any, Any]]] = {
    # (resets now, last loss now) -> (is_done, mask, the next state is initial)
    "a": lambda resets, last: (last, ~resets, resets),
    "b": lambda resets, last: (resets, ~resets, resets),
    "c": lambda resets, last: (last, jnp.bool_(True), last),
}


@dataclasses.dataclass(frozen=True)
class Ramp(TruncatedStep):
    """`loss_t = t theta` for t = 1, 2, 3, and then again, ended in any of the three ways."""

    convention: str

    def outer_init(self, key: Any) -> Any:
        return {"slope": jnp.zeros(())}

    def episodes(self, outer_state: Any) -> EpisodesInExpectation:
        return EpisodesInExpectation(3.0) if self.convention == "c" else with_a_reset_step(3.0)

    def init_step_state(self, theta: Any, outer_state: Any, key: Any) -> Any:
        return jnp.int32(0)

    def unroll_step(self, theta: Any, unroll_state: Any, key: Any, data: Any, outer_state: Any) -> Any:
        step = unroll_state + 1
        is_done, mask, begins = END_OF_EPISODE[self.convention](step == 4, step == 3)
        state = jnp.where(begins, 0, step)
        loss = step * theta["slope"]
        return state, TruncatedUnrollOut(loss, is_done, (), jnp.where(mask, step, 0), mask)


@pytest.mark.promoting
@pytest.mark.parametrize(
    ("convention", "period", "tolerance"), [("a", 4, 0.16), ("b", 4, 0.16), ("c", 3, 1e-4)]
)
def test_every_way_to_end_an_episode_gives_the_gradient(
    convention: str, period: int, tolerance: float
) -> None:
    # Losses are linear in theta, so with Rademacher noise each task's estimate is the gradient, 2; in (a) and
    # (b) plus the noise under which the reset was made times that of the truncation: 2 / sqrt(4096) = 0.03.
    step = VectorizedTruncatedStep(Ramp(convention), 4096)
    estimator = TruncatedPES(step, period, steps_per_jit=period, std=0.5, perturbation="rademacher")
    weights = WorkerWeights(step.outer_init(KEY), None, OuterState(jnp.int32(0)))
    state = estimator.init_worker_state(weights, KEY)
    for key in jax.random.split(KEY, 3):
        out, _ = estimator.compute_gradient_estimate(weights, key, state)
        state = out.unroll_state
        np.testing.assert_allclose(out.grad["slope"], 2.0, atol=tolerance)
