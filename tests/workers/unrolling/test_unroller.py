import pytest

from protos.exit_codes import RefusedError
from workers.unrolling.unroller import _mesh_of


class FakeDevice:
    platform = "cpu"


DEVICES = [FakeDevice() for _ in range(4)]


@pytest.mark.parametrize(("platform", "remedy"), [("cpu", "--cpu-devices 5"), ("cuda", "give it as many")])
def test_a_worker_with_fewer_devices_than_the_run_divides_tasks_among_is_refused(platform, remedy):
    with pytest.raises(RefusedError, match=f"has 4 cpu device.*workers.devices is 5: .*{remedy}"):
        _mesh_of({"devices": 5, "platform": platform}, DEVICES)


def test_a_worker_takes_as_many_devices_as_the_run_says_and_no_more():
    assert _mesh_of({"devices": 3}, DEVICES).devices.tolist() == DEVICES[:3]


@pytest.mark.parametrize("wanted", [{}, {"devices": 1}])
def test_a_run_on_one_device_needs_no_mesh(wanted):
    assert _mesh_of(wanted, DEVICES) is None
