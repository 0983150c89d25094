"""When and how a run ends, and what is reported while theta does not move."""

import pytest

from learner.state.run_state import RunControl, RunState
from learner.storage.update_record import Effect


@pytest.fixture
def control() -> RunControl:
    return RunControl(outer_steps=10)


def update(control: RunControl, *effects: Effect) -> None:
    for outer_step, effect in enumerate(effects, start=1):
        control.updated(outer_step, effect)


def test_a_run_continues_while_nothing_ends_it(control: RunControl) -> None:
    assert control.end(5, computing=False) is None
    assert control.state(workers=1) is RunState.RUNNING
    assert control.state(workers=0) is RunState.WAITING_FOR_WORKERS


@pytest.mark.parametrize(
    ("effect", "final"), [(Effect.MOVED, RunState.FINISHED), (Effect.EMPTY, RunState.UNTRAINED)]
)
def test_at_the_last_outer_step_the_run_is_finished_if_theta_ever_moved(
    control: RunControl, effect: Effect, final: RunState
) -> None:
    update(control, effect)
    assert control.end(10, computing=True) is final


def test_a_stop_waits_for_the_current_outer_step(control: RunControl) -> None:
    control.stop(3, now=False)
    assert control.state(workers=1) is RunState.STOPPING
    assert control.end(3, computing=True) is None
    assert control.end(4, computing=True) is RunState.STOPPED


def test_an_immediate_stop_does_not_wait(control: RunControl) -> None:
    control.stop(3, now=True)
    assert control.end(3, computing=True) is RunState.STOPPED


def test_a_later_stop_can_only_bring_the_end_forward(control: RunControl) -> None:
    control.stop(3, now=True)
    control.stop(3, now=False)
    assert control.end(3, computing=True) is RunState.STOPPED


def test_a_stop_does_not_wait_for_a_step_that_no_worker_computes(control: RunControl) -> None:
    control.stop(3, now=False)
    assert control.end(3, computing=False) is RunState.STOPPED


def test_a_stop_does_not_wait_while_the_run_is_paused(control: RunControl) -> None:
    control.paused = True
    assert control.state(workers=1) is RunState.PAUSED
    control.stop(3, now=False)
    assert control.end(3, computing=True) is RunState.STOPPED


def test_three_reverted_updates_fail_the_run(control: RunControl) -> None:
    update(control, Effect.REVERTED, Effect.EMPTY, Effect.REVERTED)
    assert control.end(3, computing=True) is None
    control.updated(4, Effect.REVERTED)
    assert control.end(4, computing=True) is RunState.FAILED


def test_an_update_that_moves_theta_resets_the_count_of_reverted_ones(control: RunControl) -> None:
    update(control, Effect.REVERTED, Effect.REVERTED, Effect.MOVED, Effect.REVERTED)
    assert control.end(4, computing=True) is None


def test_the_outcome_hides_every_other_state(control: RunControl) -> None:
    control.paused = True
    control.stop(3, now=True)
    control.final = RunState.FAILED
    assert control.state(workers=1) is RunState.FAILED


@pytest.mark.parametrize(
    ("effects", "report"),
    [
        ((Effect.MOVED, Effect.EMPTY, Effect.EMPTY), ""),
        (
            (Effect.MOVED, *[Effect.EMPTY] * 3),
            "has not moved since outer step 1 (3 updates): no gradient had",
        ),
        ((Effect.EMPTY,) * 3, "has not moved at all (3 updates): no gradient had weight"),
        ((Effect.REVERTED,) * 3, "has not moved at all (3 updates): theta or the outer optimizer's state"),
    ],
)
def test_a_standstill_of_three_updates_is_reported_with_its_cause(
    control: RunControl, effects: tuple[Effect, ...], report: str
) -> None:
    update(control, *effects)
    assert control.standstill(len(effects)).startswith(report)
    assert bool(control.standstill(len(effects))) is bool(report)
