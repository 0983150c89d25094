"""Connecting to Ray takes a limited time, and can be given up."""

import threading
from typing import Any

import pytest

from workers.pools.ray_connection import connect


class StandIn:
    """Ray, as far as `connect` knows it; answers once it is let."""

    def __init__(self, error: Exception | None = None) -> None:
        self.answers = threading.Event()
        self.options: dict[str, Any] = {}
        self._error = error

    def init(self, **options: Any) -> None:
        self.options = options
        self.answers.wait()
        if self._error is not None:
            raise self._error


ADDRESS = "127.0.0.1:6379"


@pytest.mark.parametrize("address", [ADDRESS, f"ray://{ADDRESS}", "auto"])
def test_a_cluster_that_does_not_answer_is_given_up(address: str) -> None:
    ray = StandIn()
    with pytest.raises(TimeoutError, match="no answer within"):
        connect(ray, address, limit_s=0.0)
    ray.answers.set()


def test_a_ray_that_does_not_start_is_given_up() -> None:
    ray = StandIn()
    with pytest.raises(TimeoutError, match="no answer within"):
        connect(ray, None, limit_s=0.0)
    ray.answers.set()


def test_the_wait_can_be_cancelled() -> None:
    ray = StandIn()
    with pytest.raises(InterruptedError):
        connect(ray, ADDRESS, lambda: True)
    ray.answers.set()


def test_what_ray_raises_is_raised() -> None:
    ray = StandIn(RuntimeError("no room for the object store"))
    ray.answers.set()
    with pytest.raises(RuntimeError, match="object store"):
        connect(ray, None)


def test_a_cluster_that_answers_is_connected_to() -> None:
    ray = StandIn()
    ray.answers.set()
    connect(ray, ADDRESS)
    assert ray.options["address"] == ADDRESS
