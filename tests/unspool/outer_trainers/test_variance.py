"""The variance of estimates, at 5 sigma against closed forms for losses that are linear in theta.

With `G_j` the gradient of a truncation's mean loss with respect to the j-th of m noises its episode has felt
and `G` their sum, in d dimensions one pair has `E |g|^2 = m d sum_j |G_j|^2 + 2 |G|^2` with Gaussian noise.
"""

from typing import Any

import numpy as np
import pytest

from tests.unspool.outer_trainers.systems import DECAY, LinearSystem
from tests.unspool.outer_trainers.test_unbiasedness import SAMPLES, SIGMAS, truncations
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.gpes import GPES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import ConstantTruncationSchedule

LENGTH, WINDOW, DIMENSION = 12, 4, 2
SYSTEM = LinearSystem(LENGTH)


def gradients_by_step() -> np.ndarray:
    """`[t, i, 2]`: the loss at step t differentiated with respect to theta at step i."""
    gradients = np.zeros((LENGTH, LENGTH, DIMENSION))
    for t in range(LENGTH):
        for i in range(t + 1):
            gradients[t, i] = DECAY ** (t - i) * np.array([1.0, i + 1])
    return gradients


def expected_square(truncation: int, noise_length: int) -> float:
    """`E |g|^2` of one pair."""
    of_window = gradients_by_step()[truncation * WINDOW : (truncation + 1) * WINDOW].mean(axis=0)
    last = (truncation + 1) * WINDOW
    blocks = [of_window[i : i + noise_length].sum(axis=0) for i in range(0, last, noise_length)]
    squares = sum(float(block @ block) for block in blocks)
    total = sum(blocks)
    return len(blocks) * DIMENSION * squares + 2 * float(total @ total)


def assert_mean(samples: np.ndarray, expected: float) -> None:
    rounding = 1e-4 * abs(expected)  # in two dimensions some kinds of noise are off by the same always
    assert abs(samples.mean() - expected) < SIGMAS * samples.std() / np.sqrt(SAMPLES) + rounding


@pytest.mark.parametrize(("name", "noise_length"), [("TruncatedPES", WINDOW), ("GPES", 8), ("NRES", LENGTH)])
def test_variance_is_that_of_the_closed_form(name: str, noise_length: int) -> None:
    step = VectorizedTruncatedStep(SYSTEM, 1)
    estimator: Any = {
        "TruncatedPES": lambda: TruncatedPES(step, WINDOW, steps_per_jit=1, std=1.0),
        "GPES": lambda: GPES(step, WINDOW, noise_length=noise_length, std=1.0),
        "NRES": lambda: NRES(step, WINDOW, std=1.0),
    }[name]()
    squares = np.sum(truncations(estimator, LENGTH // WINDOW) ** 2, axis=-1)
    for truncation in range(LENGTH // WINDOW):
        assert_mean(squares[:, truncation], expected_square(truncation, noise_length))


@pytest.mark.parametrize(
    ("options", "pairs", "factor"),
    [
        ({}, 1, DIMENSION + 1),
        ({}, 4, (DIMENSION + 1) / 4),
        ({"perturbation": "rademacher"}, 1, DIMENSION - 1),
        ({"perturbation": "sphere"}, 1, DIMENSION - 1),
        ({"orthogonal": True}, 2, (DIMENSION + 1) / 2 - (DIMENSION - 1) / 2),
        ({"perturbation": "sphere", "orthogonal": True}, 2, 0.0),
    ],
)
def test_noise_kinds_have_their_variances(options: dict[str, Any], pairs: int, factor: float) -> None:
    """Of whole episodes, in units of the squared gradient."""
    schedule = ConstantTruncationSchedule(LENGTH)
    step = VectorizedTruncatedStep(SYSTEM, 1)
    estimator = FullES(step, schedule, std=1.0, steps_per_jit=1, pairs_per_task=pairs, **options)
    gradient = gradients_by_step().sum(axis=1).mean(axis=0)
    errors = np.sum((truncations(estimator, 1)[:, 0] - gradient) ** 2, axis=-1)
    expected = factor * float(gradient @ gradient)
    if factor:
        assert_mean(errors, expected)
    else:
        assert errors.max() < 1e-6 * float(gradient @ gradient)


def test_noise_that_is_reused_never_has_more_variance() -> None:
    squares = {
        length: [expected_square(truncation, length) for truncation in range(3)] for length in (4, 8, LENGTH)
    }
    assert all(reused <= persistent for reused, persistent in zip(squares[LENGTH], squares[4], strict=True))
    assert all(reused <= longer for reused, longer in zip(squares[LENGTH], squares[8], strict=True))
