"""Published thetas: consecutive, identified by their digests, and kept as long as they are needed."""

import hashlib

import pytest

from learner.storage.thetas import Published, ThetaHistory


def published(outer_step: int) -> Published:
    return Published.of(outer_step, b"theta" * outer_step)


@pytest.fixture
def history() -> ThetaHistory:
    return ThetaHistory([published(outer_step) for outer_step in (3, 4, 5)])


def kept(history: ThetaHistory) -> list[int]:
    return [one.outer_step for one in history.kept()]


def test_a_theta_is_identified_by_the_digest_of_its_bytes() -> None:
    assert published(2).sha256 == hashlib.sha256(b"thetatheta").hexdigest()


def test_the_newest_theta_is_the_last_one_published(history: ThetaHistory) -> None:
    history.publish(published(6))
    assert (history.newest, kept(history)) == (published(6), [3, 4, 5, 6])


@pytest.mark.parametrize("outer_step", [5, 7])
def test_only_the_next_theta_can_be_published(history: ThetaHistory, outer_step: int) -> None:
    with pytest.raises(ValueError, match=rf"publish\({outer_step}\): the next is 6"):
        history.publish(published(outer_step))


def test_a_theta_is_found_by_its_outer_step_while_it_is_kept(history: ThetaHistory) -> None:
    history.trim(oldest=4)
    assert (history.get(3), history.get(4)) == (None, published(4))


def test_the_newest_theta_is_never_discarded(history: ThetaHistory) -> None:
    history.trim(oldest=100)
    assert kept(history) == [5]
