"""The resources that a cluster lacks for a worker, from Ray's description of its nodes."""

import pytest

from workers.pools.ray_room import most_that_fit, shortage


@pytest.mark.parametrize(
    ("bundle", "nodes", "free", "words"),
    [
        ({"CPU": 1.0}, [{"CPU": 1.0}], {}, "CPU: 1 wanted, 0 of 1 in the cluster free"),
        (
            {"CPU": 4.0},
            [{"CPU": 2.0}, {"CPU": 3.0}],
            {"CPU": 5.0},
            "no machine of the cluster has more than 3",
        ),
        ({"CPU": 1.0, "GPU": 1.0}, [{"CPU": 8.0}], {"CPU": 8.0}, "GPU: 1 wanted, no machine of the cluster"),
        (
            {"CPU": 1.0, "tpu": 2.0},
            [{"CPU": 8.0, "tpu": 2.0}],
            {"CPU": 8.0, "tpu": 1.0},
            "tpu: 2 wanted, 1 of 2",
        ),
        ({"CPU": 2.0}, [{"CPU": 2.0}] * 2, {"CPU": 2.0}, "no machine has all of CPU: 2 free at once"),
    ],
)
def test_what_is_short_is_named(
    bundle: dict[str, float], nodes: list[dict[str, float]], free: dict[str, float], words: str
) -> None:
    assert words in shortage(bundle, nodes, free)


def test_the_scarcest_resource_limits_the_number_of_workers() -> None:
    fits = most_that_fit({"CPU": 0.0, "GPU": 0.5, "tpu": 1.0}, {"GPU": 2.0, "tpu": 3.0})
    assert fits is not None
    assert fits[0] == 3
    assert "tpu: 1" in fits[1]


def test_a_resource_that_is_missing_fits_no_worker() -> None:
    assert (most_that_fit({"GPU": 1.0}, {"CPU": 2.0}) or (1, ""))[0] == 0


def test_workers_that_need_nothing_fit_in_any_number() -> None:
    assert most_that_fit({"CPU": 0.0, "GPU": 0.0}, {"CPU": 2.0}) is None
