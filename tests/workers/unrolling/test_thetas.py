import hashlib

import jax
import numpy as np
import pytest

from protos import codec
from protos.unspool.v1.learner_pb2 import ThetaAnnouncement
from workers.session.client import UnavailableError
from workers.unrolling.thetas import Thetas, weights_of

SHAPE = {"w": jax.ShapeDtypeStruct((2,), np.float32)}
SCHEMA = codec.schema_of(SHAPE)


def body_of(outer_step: int) -> bytes:
    return codec.encode({"w": np.full(2, outer_step, np.float32)}, SCHEMA)


class Client:
    """Serves the theta of every outer step."""

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def get_theta(self, outer_step: int, size: int) -> bytes:
        assert size == codec.body_bytes(SCHEMA)
        self.fetched.append(outer_step)
        return body_of(outer_step)


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def thetas(client: Client) -> Thetas:
    return Thetas(client, SCHEMA, SHAPE)


def announcement(outer_step: int, *, inline: bool) -> ThetaAnnouncement:
    body = body_of(outer_step)
    message = ThetaAnnouncement(outer_step=outer_step, sha256=hashlib.sha256(body).hexdigest())
    if inline:
        message.inline = body
    return message


def test_an_inline_theta_is_not_fetched(thetas, client):
    weights = thetas.announced(announcement(3, inline=True))
    np.testing.assert_array_equal(weights.theta["w"], [3.0, 3.0])
    assert weights.outer_state.outer_iteration == 3
    assert client.fetched == []


def test_an_announced_theta_is_fetched_once(thetas, client):
    first = thetas.announced(announcement(3, inline=False))
    assert thetas.announced(announcement(3, inline=False)) is first
    thetas.announced(announcement(4, inline=False))
    assert client.fetched == [3, 4]


def test_the_same_outer_step_with_another_digest_is_another_theta(thetas):
    before = thetas.announced(announcement(3, inline=True))
    after = announcement(5, inline=True)
    after.outer_step = 3  # a learner that restarted from an earlier checkpoint
    assert thetas.announced(after) is not before
    np.testing.assert_array_equal(thetas.announced(after).theta["w"], [5.0, 5.0])


@pytest.mark.parametrize("inline", [True, False])
def test_a_theta_with_another_digest_than_announced_is_rejected(thetas, inline):
    wrong = announcement(3, inline=inline)
    wrong.sha256 = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(UnavailableError, match="theta 3: the digest"):
        thetas.announced(wrong)


def test_thetas_of_a_replay_are_fetched_each_time(thetas, client):
    for _ in range(2):
        np.testing.assert_array_equal(thetas.published(7).theta["w"], [7.0, 7.0])
    assert client.fetched == [7, 7]


def test_weights_carry_their_outer_step_as_an_int32():
    outer_iteration = weights_of({"w": np.zeros(2)}, 9).outer_state.outer_iteration
    assert (outer_iteration.dtype, int(outer_iteration)) == (np.int32, 9)
