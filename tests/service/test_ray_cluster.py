"""Waiting for a Ray cluster ends: with an error that names the address, or when somebody wants it to."""

import socket
from collections.abc import Iterator

import pytest

from protos.exit_codes import InterruptedRunError, LearnerUnreachableError
from service.ray_cluster import await_cluster


@pytest.fixture
def mute_port() -> Iterator[str]:
    """The address of a program that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port", "nowhere.invalid:1"]
)
def test_an_address_where_nothing_listens_is_refused_at_once(address: str) -> None:
    with pytest.raises(LearnerUnreachableError, match="no Ray cluster answers"):
        await_cluster(address, lambda: False)


def test_a_program_that_is_not_ray_is_given_up(mute_port: str) -> None:
    with pytest.raises(LearnerUnreachableError, match=f"--address {mute_port}: .*no Ray answers on it"):
        await_cluster(mute_port, lambda: False, wait_s=1.0)


def test_waiting_ends_when_somebody_wants_it_to(mute_port: str) -> None:
    with pytest.raises(InterruptedRunError, match=f"waiting for the Ray cluster at {mute_port}"):
        await_cluster(mute_port, lambda: True)
