"""One lane on several devices is the lane on one, up to rounding: found out once in a process with four."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.unspool.four_devices import CASES, NUM_DEVICES
from tests.unspool.outer_trainers.examples import NOISE_REUSING, NUM_TASKS, example, weights_of
from unspool import device_mesh, lanes

pytestmark = [pytest.mark.optimized, pytest.mark.slow]

ROUNDING = 2e-4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `four_devices` prints."""
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(NUM_DEVICES),
        # As in most tests of the library: the measurements depend on how XLA divides a program, not on the
        # code that it makes of each part.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
        # It compiles an estimate once more to read the program.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("programs")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.unspool.four_devices"],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(params=CASES)
def case(found: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    """What was found out about one estimator."""
    facts: dict[str, Any] = found["cases"][request.param]
    return facts


def test_four_devices_estimate_what_one_does(case: dict[str, Any]) -> None:
    assert case["difference at the start"] < ROUNDING


def test_a_lane_moves_from_one_device_to_four_and_back(case: dict[str, Any]) -> None:
    assert max(case["differences after a move"]) < ROUNDING


def test_a_snapshot_is_the_same_bytes_whatever_it_was_restored_on(case: dict[str, Any]) -> None:
    assert case["snapshots survive"] == [True] * 4


def test_each_device_has_its_tasks_only(case: dict[str, Any]) -> None:
    assert case["is divided"] == [True] * 3


def test_nothing_is_compiled_again_after_the_first_estimate(case: dict[str, Any]) -> None:
    at_first, later = case["compilations"]
    assert (at_first > 0, later) == (True, 0)


@pytest.mark.parametrize("name", CASES)
def test_devices_wait_for_each_other_at_the_end_of_an_estimate_only(found: dict[str, Any], name: str) -> None:
    exchanges = found["cases"][name]["exchanges"]
    # Where noise is drawn in the middle of an estimate, the gradient is credited with what went before.
    at_draws = 1 if name in NOISE_REUSING else 0
    assert exchanges["sums in loops"] <= at_draws
    assert 0 < exchanges["sums at the end"] <= 4


def test_no_state_travels_between_devices(case: dict[str, Any]) -> None:
    assert case["exchanges"]["of other kinds"] == 0


@pytest.mark.parametrize("name", ["TruncatedPES", "TruncatedGrad", "a learned optimizer"])
def test_a_reset_that_no_task_needs_is_still_skipped(found: dict[str, Any], name: str) -> None:
    assert found["cases"][name]["conditionals"] > 0


def test_outer_training_on_four_devices_gives_the_theta_of_one(found: dict[str, Any]) -> None:
    assert found["outer training"] < ROUNDING


def test_tasks_that_cannot_be_divided_evenly_are_rejected_with_what_can() -> None:
    with pytest.raises(ValueError, match=r"num_tasks=6 .* among 4 devices: use num_tasks=8, or 2 of"):
        device_mesh.check_divisible(6, 4)


@pytest.mark.parametrize("name", ["TruncatedPES", "FullES"])
def test_a_lane_that_cannot_be_divided_is_rejected_before_it_is_traced(
    found: dict[str, Any], name: str
) -> None:
    expected = f"num_tasks={NUM_TASKS} cannot be divided evenly among {NUM_DEVICES} devices"
    assert expected in found["refusals"][name]


def test_a_mesh_of_one_device_gives_the_bits_of_none() -> None:
    estimator = example("TruncatedPES")
    weights = weights_of(estimator)
    bits = []
    for mesh in (None, device_mesh.task_mesh(jax.devices()[:1])):
        state = lanes.init_lane(estimator, weights, 0, 0, mesh)
        bits.append(lanes.estimate_lane(estimator, weights, state, 0, 0, 1, mesh).grad)
    jax.tree.map(np.testing.assert_array_equal, *bits)


def test_a_mesh_without_devices_is_rejected() -> None:
    with pytest.raises(ValueError, match="give at least one device"):
        device_mesh.task_mesh([])
