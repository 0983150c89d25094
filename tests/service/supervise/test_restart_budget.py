import pytest

from protos.exit_codes import ExitCode
from service.supervise.restart_budget import (
    EndKind,
    RestartBudget,
    RestartPolicy,
    cause_of,
    kind_of_exit,
    recent,
)
from workers.pools.pool import Exit

POLICY = RestartPolicy()
CRASH = Exit(ExitCode.FAILED, "Traceback:\n  line 3\nValueError: no data")


def charged(*kinds: EndKind, policy: RestartPolicy = POLICY, every_s: float = 10.0) -> RestartBudget:
    """A budget after ends of these kinds, one every `every_s` seconds from time 0 on."""
    budget = RestartBudget("w0", policy)
    for number, kind in enumerate(kinds):
        budget.charge(kind, CRASH, number * every_s)
    return budget


@pytest.mark.parametrize(("ends", "delay_s"), [(1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (10_000, 60.0)])
def test_the_delay_doubles_up_to_its_limit(ends: int, delay_s: float) -> None:
    assert RestartPolicy().delay_s(ends) == delay_s


def test_an_end_that_was_requested_costs_nothing() -> None:
    budget = charged(EndKind.ASKED)
    assert (budget.ends, budget.last_end, budget.problem) == (0, "", "")
    assert budget.start_after < 0


def test_a_drained_worker_is_restarted_after_the_first_delay_and_not_counted() -> None:
    budget = charged(EndKind.DRAINED)
    assert (budget.ends, budget.start_after) == (0, 1.0)


def test_crashes_and_preemptions_are_counted_separately() -> None:
    policy = RestartPolicy(crashes=2, preemptions=2)
    assert charged(EndKind.CRASHED, EndKind.PREEMPTED, policy=policy).problem == ""
    assert "ended 2 times" in charged(EndKind.CRASHED, EndKind.CRASHED, policy=policy).problem
    assert "was preempted 2 times" in charged(EndKind.PREEMPTED, EndKind.PREEMPTED, policy=policy).problem


def test_the_problem_names_the_log_and_the_last_cause() -> None:
    problem = charged(EndKind.CRASHED, policy=RestartPolicy(crashes=1)).problem
    assert "see logs/w0.log" in problem
    assert "crashed: ValueError: no data" in problem


def test_crashes_outside_the_window_do_not_count() -> None:
    policy = RestartPolicy(crashes=2, window_s=100.0)
    assert charged(EndKind.CRASHED, EndKind.CRASHED, policy=policy, every_s=100.0).problem == ""
    assert charged(EndKind.CRASHED, EndKind.CRASHED, policy=policy, every_s=99.0).problem != ""


def test_an_estimate_clears_the_crashes() -> None:
    budget = charged(EndKind.CRASHED, EndKind.CRASHED)
    budget.forgive()
    budget.charge(EndKind.CRASHED, CRASH, 100.0)
    assert (budget.ends, budget.start_after) == (3, 101.0)


def test_a_rejected_worker_is_not_restarted() -> None:
    assert "was refused by the learner" in charged(EndKind.REFUSED).problem


@pytest.mark.parametrize(
    ("ended", "kind"),
    [
        (Exit(ExitCode.OK, ""), EndKind.DRAINED),
        (Exit(ExitCode.EVICTED, ""), EndKind.EVICTED),
        (Exit(ExitCode.REFUSED, ""), EndKind.REFUSED),
        (Exit(ExitCode.FAILED, ""), EndKind.CRASHED),
        (Exit(None, "killed by SIGSEGV"), EndKind.CRASHED),
        (Exit(None, "the node is gone", preempted=True), EndKind.PREEMPTED),
    ],
)
def test_the_exit_code_gives_the_kind_of_an_end(ended: Exit, kind: EndKind) -> None:
    assert kind_of_exit(ended) is kind


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        (CRASH, "ValueError: no data"),
        (Exit(ExitCode.EVICTED, "whatever"), "its lanes were leased to others"),
        (Exit(3, ""), "exit code 3"),
    ],
)
def test_the_cause_is_the_last_line_or_the_exit_code(ended: Exit, cause: str) -> None:
    assert cause_of(ended) == cause


def test_a_long_cause_is_truncated() -> None:
    assert len(cause_of(Exit(1, 1000 * "x"))) == 300


def test_recent_times_end_with_the_new_one() -> None:
    assert recent([1.0, 5.0, 9.0], now=10.0, window_s=5.0) == [9.0, 10.0]
