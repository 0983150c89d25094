import pytest

from workers.client import RefusedError
from workers.unroller import _check_cpu_threads, _check_platform, _mesh_of


class FakeDevice:
    platform = "cpu"


DEVICES = [FakeDevice() for _ in range(4)]


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


@pytest.mark.parametrize(("platform", "remedy"), [("cpu", "--cpu-devices 5"), ("cuda", "give it as many")])
def test_a_worker_with_fewer_devices_than_the_run_divides_tasks_among_is_refused(platform, remedy):
    with pytest.raises(RefusedError, match=f"has 4 cpu device.*workers.devices is 5: .*{remedy}"):
        _mesh_of({"devices": 5, "platform": platform}, DEVICES)


def test_a_worker_takes_as_many_devices_as_the_run_says_and_no_more():
    assert _mesh_of({"devices": 3}, DEVICES).devices.tolist() == DEVICES[:3]


@pytest.mark.parametrize("wanted", [{}, {"devices": 1}])
def test_a_run_on_one_device_needs_no_mesh(wanted):
    assert _mesh_of(wanted, DEVICES) is None
