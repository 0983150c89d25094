"""How many workers a run wants that was given a range."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.coordination.autoscale import Window, next_desired, yield_of
from learner.coordination.status import build_status
from learner.scale import Scale, WorkerRange
from learner.settings import LearnerSettings
from tests.learner.builders import Peer, WatchedCore, make_core, make_settings
from tests.support.clock import Clock

BOUNDS = WorkerRange(2, 12)
LANES = 16


def window(workers: int, applied: int, late: int = 0) -> Window:
    return Window(workers, applied, late, span_s=10.0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (window(4, applied=100), 5),
        (window(4, applied=80, late=20), 5),
        (window(4, applied=70, late=30), 4),
        (window(4, applied=40, late=60), 3),
        (window(8, applied=40, late=60), 6),
        (window(2, applied=0, late=100), 2),
        (window(12, applied=100), 12),
    ],
    ids=str,
)
def test_workers_are_worth_what_of_their_estimates_counts(now: Window, expected: int) -> None:
    assert next_desired(BOUNDS, LANES, now, before=None) == expected


def test_it_is_the_last_ones_that_must_be_worth_it() -> None:
    before, now = window(4, applied=100), window(6, applied=110, late=40)
    assert now.applied / (now.applied + now.late) > 0.7
    assert yield_of(now, before) == pytest.approx(0.2)
    assert next_desired(BOUNDS, LANES, now, before) == 5


def test_where_more_workers_make_no_more_all_of_them_are_judged() -> None:
    assert yield_of(window(6, applied=50, late=50), window(4, applied=100)) == 0.5


@given(
    workers=st.integers(0, 40),
    applied=st.integers(1, 100),
    late=st.integers(0, 100),
    fewest=st.integers(0, 10),
    more=st.integers(0, 20),
)
def test_the_number_stays_within_the_range(
    workers: int, applied: int, late: int, fewest: int, more: int
) -> None:
    bounds = WorkerRange(fewest, fewest + more)
    wanted = next_desired(bounds, 8, window(workers, applied, late), before=None)
    assert fewest <= wanted <= max(fewest, min(fewest + more, 8))


class Watched:
    """A run with a range, of which workers' estimates are just counted."""

    def __init__(self, run_dir: Path, **changes: Any) -> None:
        self.clock = Clock()
        defaults = {"lanes": 4, "mode": "async", "min_count": 1, "count": 2}
        self.core = make_core(run_dir, self.clock, **(defaults | changes))
        self.core.admin.scale_between(1, 8)
        self.peers: dict[str, Peer] = {}

    @property
    def desired(self) -> int:
        return self.core.run.scale.workers

    def follow(self) -> None:
        """Do what a supervisor does."""
        for number in range(self.desired):
            if f"w{number}" not in self.peers:
                self.peers[f"w{number}"] = Peer(self.core, f"w{number}")
        for name in [f"w{number}" for number in range(self.desired, len(self.peers))]:
            self.core.leave(self.peers.pop(name).session_id, "scaled down")
        self.tick()

    def tick(self) -> None:
        for peer in self.peers.values():
            peer.beat()
        self.core.tick()

    def work(self, applied: int, late: int = 0) -> None:
        """Let half a minute pass in which so many estimates were used, and so many were not."""
        self.core.run.telemetry.counters.verdicts.update(APPLIED=applied, STALE=late)
        for _ in range(6):
            self.clock.advance(5.1)
            for peer in self.peers.values():
                peer.beat()
        self.core.tick()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    watched = Watched(tmp_path)
    watched.follow()
    return watched


def test_a_run_grows_while_everything_counts_but_not_beyond_its_lanes(watched: Watched) -> None:
    for _ in range(5):
        watched.work(applied=50)
        watched.follow()
    assert watched.desired == 4
    assert watched.core.run.telemetry.events.latest(1)[0].kind != "autoscaled"


def test_nothing_changes_before_every_worker_is_there(watched: Watched) -> None:
    watched.core.run.scale = watched.core.run.scale._replace(workers=3)
    watched.work(applied=50)
    assert watched.desired == 3


def test_nothing_is_concluded_from_a_few_estimates(watched: Watched) -> None:
    watched.work(applied=7)
    assert watched.desired == 2


def test_nothing_is_concluded_while_the_run_is_paused(watched: Watched) -> None:
    watched.core.admin.pause()
    watched.work(applied=50)
    assert watched.desired == 2


def test_a_run_shrinks_only_after_a_second_look(watched: Watched) -> None:
    watched.work(applied=20, late=80)
    once = watched.desired
    watched.work(applied=20, late=80)
    assert (once, watched.desired) == (2, 1)
    assert (
        watched.core.run.telemetry.events.latest(1)[0].text
        == "2 to 1 workers: 20% of what the last ones made counts"
    )


def test_what_was_too_many_is_not_tried_again_soon(watched: Watched) -> None:
    for _ in range(2):
        watched.work(applied=20, late=80)
    watched.follow()
    watched.work(applied=50)
    soon = watched.desired
    for _ in range(20):
        watched.work(applied=50)
    assert (soon, watched.desired) == (1, 2)


def test_a_number_ends_the_range(watched: Watched) -> None:
    watched.core.admin.scale(2)
    watched.work(applied=50)
    assert watched.desired == 2
    status = build_status(watched.core.run)
    assert (status.workers_min, status.workers_max) == (2, 2)


def test_status_shows_the_range(watched: Watched) -> None:
    status = build_status(watched.core.run)
    assert (status.workers_min, status.workers_desired, status.workers_max) == (1, 2, 8)


def test_a_range_moves_the_number_into_itself(tmp_path: Path) -> None:
    core = make_core(tmp_path, lanes=4)
    assert core.admin.scale_between(2, 3)[0] == Scale(1)
    assert core.run.scale.workers == 2


@pytest.mark.parametrize("bounds", [(3, 2), (0, 9)])
def test_a_range_that_cannot_be_is_refused(tmp_path: Path, bounds: tuple[int, int]) -> None:
    core: WatchedCore = make_core(tmp_path)
    with pytest.raises(ValueError, match=r"must be 0 <= MIN <= MAX <= 8 \(workers\.max_count\)"):
        core.admin.scale_between(*bounds)


def test_settings_give_the_first_range(tmp_path: Path) -> None:
    settings: LearnerSettings = make_settings(tmp_path, min_count=1, count=2)
    assert settings.workers.scale == Scale(2, WorkerRange(1, 8))
    with pytest.raises(ValueError, match=r"workers\.min_count = 9"):
        make_settings(tmp_path, min_count=9)


@pytest.mark.parametrize("remembered", [None, 3, [1], [1, 2], [1, [2]], ["a", None], {}])
def test_a_scale_is_read_back_only_if_it_is_one(remembered: object) -> None:
    assert Scale.of(remembered) is None
