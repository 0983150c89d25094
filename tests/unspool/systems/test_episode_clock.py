"""Counters of steps for episodes of one length."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.unspool.systems.examples import SYSTEMS
from unspool.systems import episode_clock

KEY = jax.random.PRNGKey(0)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episode_length": 0}, r"\(episode_length=0\): episode_length must be at least 1"),
        ({"episode_length": 2.5}, r"\(episode_length=2.5\)"),
        ({"stagger": -1}, r"\(stagger=-1\): stagger must not be negative"),
        ({"episode_length": 10, "stagger": 4}, r"\(stagger=4\): episode_length=10 must be a multiple"),
    ],
)
def test_impossible_episodes_are_rejected_by_name(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}{message}"):
        SYSTEMS[name](**arguments)


@dataclasses.dataclass(frozen=True)
class Lengths:
    """The fields of a system that set the length of its episodes."""

    episode_length: Any = None
    stagger: Any = 0


def clocks(
    length: int | None, stagger: int, key: jax.Array, steps: int
) -> list[tuple[int, int | None, bool]]:
    """Step and length after each of several steps, and whether the step ended an episode."""
    system = Lengths(length, stagger)
    clock, found = episode_clock.first(system, key), []
    for _ in range(steps):
        clock, is_done = episode_clock.after_step(system, clock)
        found.append((int(clock.step), None if clock.length is None else int(clock.length), bool(is_done)))
    return found


def test_a_clock_restarts_in_the_step_that_ends_an_episode() -> None:
    assert clocks(3, 0, KEY, 4) == [(1, 3, False), (2, 3, False), (0, 3, True), (1, 3, False)]


def test_a_clock_without_a_length_counts_on() -> None:
    assert clocks(None, 0, KEY, 3) == [(1, None, False), (2, None, False), (3, None, False)]


def test_a_staggered_first_episode_ends_at_a_multiple_and_later_ones_do_not() -> None:
    first_lengths = set()
    for key in jax.random.split(KEY, 16):
        length = int(episode_clock.first(Lengths(6, 2), key).length)
        first_lengths.add(length)
        ends = [index + 1 for index, (_, _, is_done) in enumerate(clocks(6, 2, key, length + 6)) if is_done]
        assert ends == [length, length + 6]
    assert first_lengths == {2, 4, 6}


def test_a_masked_step_reports_no_loss_and_counts() -> None:
    clock = episode_clock.first(Lengths(3), KEY)
    done = jnp.bool_(False)
    masked, plain = (
        episode_clock.step_out(jnp.float32(7), done, clock, mask) for mask in (jnp.bool_(False), None)
    )
    assert (float(masked.loss), bool(masked.mask), int(masked.iteration)) == (0.0, False, 1)
    assert (float(plain.loss), bool(plain.mask), int(plain.iteration)) == (7.0, True, 1)
    assert int(plain.episode_length) == 3


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (Lengths(None, 2), r"Lengths\(stagger=2\): episodes that never end cannot be staggered"),
        (Lengths(7, 2), r"Lengths\(stagger=2\): episode_length=7 must be a multiple of stagger"),
        (Lengths(0), r"Lengths\(episode_length=0\): episode_length must be at least 1"),
        (Lengths(4, -2), r"Lengths\(stagger=-2\): stagger must not be negative"),
    ],
)
def test_lengths_that_contradict_each_other_are_rejected(lengths: Lengths, message: str) -> None:
    episode_clock.check(Lengths(6, 2))
    episode_clock.check(Lengths())
    with pytest.raises(ValueError, match=message):
        episode_clock.check(lengths)
