from types import SimpleNamespace
from typing import Any

import pytest

from protos.exit_codes import RefusedError
from unspool.config.numerics import Numerics
from workers.unrolling.fitness import check_devices, compute_as


def check(wanted: dict[str, Any], *, platform: str = "cpu", devices: int = 1, threads: str = "") -> None:
    check_devices(wanted, {"PJRT_NPROC": threads}, [SimpleNamespace(platform=platform)] * devices)


@pytest.mark.parametrize("threads", ["", "1"])
def test_other_numbers_of_cpu_threads_are_rejected_with_the_remedy(threads):
    with pytest.raises(RefusedError, match="--cpu-threads 2"):
        check({"cpu_threads": 2, "platform": "cpu"}, threads=threads)


@pytest.mark.parametrize(
    ("wanted", "platform"),
    [
        ({"cpu_threads": 2, "platform": "cpu"}, "cpu"),
        ({"cpu_threads": 1, "platform": "cuda"}, "gpu"),
        ({}, "cpu"),
    ],
)
def test_cpu_threads_that_fit_or_do_not_matter_are_accepted(wanted, platform):
    check(wanted, platform=platform, threads="2")


@pytest.mark.parametrize(("wanted", "own"), [("cpu", "gpu"), ("cuda", "cpu"), ("tpu", "gpu")])
def test_another_platform_is_rejected(wanted, own):
    with pytest.raises(
        RefusedError, match=rf"computes on {own} but .* workers.platform is {wanted}: start it"
    ):
        check({"platform": wanted}, platform=own)


@pytest.mark.parametrize(
    ("wanted", "own"), [({"platform": "rocm"}, "gpu"), ({"platform": "cpu"}, "cpu"), ({}, "tpu")]
)
def test_the_runs_platform_is_accepted(wanted, own):
    check(wanted, platform=own)


def test_more_cpu_devices_than_the_runs_are_rejected_because_they_change_bits():
    with pytest.raises(RefusedError, match=r"4 devices .* workers.devices is 1: .*--cpu-devices 1"):
        check({"platform": "cpu"}, devices=4)


@pytest.mark.parametrize(
    ("wanted", "platform"),
    [({"platform": "cpu", "devices": 4}, "cpu"), ({"platform": "cuda", "devices": 1}, "gpu")],
)
def test_devices_that_fit_or_do_not_matter_are_accepted(wanted, platform):
    check(wanted, platform=platform, devices=4)


def test_a_variable_that_the_libraries_have_read_already_is_rejected_with_the_remedy():
    runs = Numerics(environment={"NVIDIA_TF32_OVERRIDE": "0"})
    with pytest.raises(RefusedError, match=r"NVIDIA_TF32_OVERRIDE=unset but the run's .* is 0: start it"):
        compute_as(runs, {})
    compute_as(runs, {"NVIDIA_TF32_OVERRIDE": "0"})
