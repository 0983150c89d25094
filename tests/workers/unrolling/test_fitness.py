import pytest

from protos.exit_codes import RefusedError
from workers.unrolling.fitness import _check_cpu_devices, _check_cpu_threads, _check_platform, check_devices


@pytest.mark.parametrize("own", ["", "1"])
def test_a_worker_that_would_give_other_bits_is_refused_with_the_remedy(own):
    with pytest.raises(RefusedError, match="--cpu-threads 2"):
        _check_cpu_threads({"cpu_threads": 2, "platform": "cpu"}, own)


@pytest.mark.parametrize(
    "wanted", [{"cpu_threads": 2, "platform": "cpu"}, {"cpu_threads": 1, "platform": "cuda"}, {}]
)
def test_a_worker_that_fits_or_whose_bits_do_not_depend_on_it_is_taken(wanted):
    _check_cpu_threads(wanted, "2")


@pytest.mark.parametrize(("platform", "own"), [("cpu", "gpu"), ("cuda", "cpu"), ("tpu", "gpu")])
def test_a_worker_on_another_platform_is_refused(platform, own):
    with pytest.raises(
        RefusedError, match=f"computes on {own} but .* workers.platform is {platform}: start it"
    ):
        _check_platform({"platform": platform}, own)


@pytest.mark.parametrize(
    ("wanted", "own"), [({"platform": "rocm"}, "gpu"), ({"platform": "cpu"}, "cpu"), ({}, "tpu")]
)
def test_a_worker_on_the_runs_platform_is_taken(wanted, own):
    _check_platform(wanted, own)


def test_a_worker_with_more_cpu_devices_than_the_run_has_is_refused_for_they_change_bits():
    with pytest.raises(RefusedError, match=r"4 devices .* workers.devices is 1: .*--cpu-devices 1"):
        _check_cpu_devices({"platform": "cpu"}, 4)
    _check_cpu_devices({"platform": "cpu", "devices": 4}, 4)
    _check_cpu_devices({"platform": "cuda", "devices": 1}, 4)


class FakeDevice:
    platform = "cpu"


def test_every_property_of_the_devices_that_decides_bits_is_compared():
    wanted, environ = {"platform": "cpu", "cpu_threads": 1, "devices": 2}, {"PJRT_NPROC": "1"}
    check_devices(wanted, environ, [FakeDevice()] * 2)
    for other in ({"platform": "cuda"}, {"cpu_threads": 2}, {"devices": 1}):
        with pytest.raises(RefusedError):
            check_devices(wanted | other, environ, [FakeDevice()] * 2)
