"""Reports of the workers' supervisor: how long they are valid, and their limits."""

import pytest

from learner.state.supervision import FRESH_S, Supervision
from protos.unspool.v1.admin_pb2 import AbsentWorker, SupervisionNote
from tests.support.clock import Clock


@pytest.fixture
def supervision(clock: Clock) -> Supervision:
    return Supervision(clock)


def test_before_any_note_nothing_is_known(supervision: Supervision) -> None:
    assert (supervision.problems, supervision.absent_workers, supervision.lack_of_room(99)) == ([], [], "")


def test_only_new_problems_are_returned(supervision: Supervision) -> None:
    assert supervision.take(SupervisionNote(problems=["a", "b"])) == ["a", "b"]
    assert supervision.take(SupervisionNote(problems=["b", "c"])) == ["c"]
    assert supervision.problems == ["b", "c"]


def test_a_solved_problem_that_returns_is_new_again(supervision: Supervision) -> None:
    supervision.take(SupervisionNote(problems=["a"]))
    supervision.take(SupervisionNote())
    assert supervision.take(SupervisionNote(problems=["a"])) == ["a"]


def test_a_note_expires(supervision: Supervision, clock: Clock) -> None:
    supervision.take(SupervisionNote(problems=["a"], most_workers=1, most_workers_reason="4 CPUs"))
    clock.advance(FRESH_S)
    assert supervision.problems == ["a"]
    clock.advance(1.0)
    assert (supervision.problems, supervision.lack_of_room(2)) == ([], "")


def test_the_age_of_an_absent_worker_includes_that_of_the_note(
    supervision: Supervision, clock: Clock
) -> None:
    supervision.take(SupervisionNote(absent_workers=[AbsentWorker(name="w1", state="starting", age_s=3.0)]))
    clock.advance(2.0)
    assert supervision.absent_workers == [AbsentWorker(name="w1", state="starting", age_s=5.0)]


@pytest.mark.parametrize(("workers", "reason"), [(2, ""), (3, "at most 2 fit: 4 CPUs")])
def test_a_number_of_workers_that_does_not_fit_has_a_reason(
    supervision: Supervision, workers: int, reason: str
) -> None:
    supervision.take(SupervisionNote(most_workers=2, most_workers_reason="4 CPUs"))
    assert supervision.lack_of_room(workers) == reason


def test_a_note_can_say_that_no_worker_fits(supervision: Supervision) -> None:
    supervision.take(SupervisionNote(most_workers=0, most_workers_reason="no CPU"))
    assert supervision.lack_of_room(1) == "at most 0 fit: no CPU"


def test_a_large_note_is_truncated(supervision: Supervision) -> None:
    absent = [AbsentWorker(name="n" * 100, state="s" * 3000)] * 2000
    supervision.take(SupervisionNote(problems=["p" * 3000] * 100, absent_workers=absent))
    assert (len(supervision.problems), len(supervision.problems[0])) == (64, 2000)
    workers = supervision.absent_workers
    assert (len(workers), len(workers[0].name), len(workers[0].state)) == (1024, 64, 2000)
