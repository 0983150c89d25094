"""Estimators built from the parts of their step."""

from typing import Any

import pytest

from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
    TruncationSchedule,
)
from unspool.steps.learned_optimizer_parts import estimator_from_parts
from unspool.tasks.quadratics import FixedDimQuadraticFamily

PARTS: dict[str, Any] = {
    "task_family": FixedDimQuadraticFamily(3),
    "learned_opt": LearnableSGD(),
    "num_tasks": 2,
}
every_whole_episode = pytest.mark.parametrize("estimator", [FullES, FullGrad])


def expected_step(schedule: TruncationSchedule, **options: Any) -> VectorizedLOptTruncatedStep:
    return VectorizedLOptTruncatedStep(
        PARTS["task_family"], PARTS["learned_opt"], schedule, PARTS["num_tasks"], **options
    )


def test_options_reach_the_step_or_the_estimator() -> None:
    schedule = LogUniformLengthSchedule(5, 10)
    made = estimator_from_parts(
        TruncatedPES, **PARTS, trunc_sched=schedule, meta_loss_split="train", task_name="mine", std=0.5
    )
    of_step = expected_step(schedule, meta_loss_split="train", task_name="mine")
    assert made == TruncatedPES(of_step, std=0.5)


@every_whole_episode
def test_the_schedule_of_whole_episodes_belongs_to_the_estimator(estimator: Any) -> None:
    schedule = LogUniformLengthSchedule(5, 10)
    made = estimator_from_parts(estimator, **PARTS, trunc_sched=schedule)
    assert made == estimator(expected_step(NeverEndingTruncationSchedule()), schedule)


@every_whole_episode
def test_a_number_is_the_length_of_all_whole_episodes(estimator: Any) -> None:
    made = estimator_from_parts(estimator, **PARTS, unroll_length=12)
    assert made.truncation_schedule == ConstantTruncationSchedule(12)


@every_whole_episode
@pytest.mark.parametrize("lengths", [{}, {"trunc_sched": ConstantTruncationSchedule(3), "unroll_length": 3}])
def test_the_length_of_whole_episodes_is_given_exactly_once(estimator: Any, lengths: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{estimator.__name__}\(trunc_sched=.*as exactly one of them"):
        estimator_from_parts(estimator, **PARTS, **lengths)


def test_an_estimator_of_truncations_needs_a_schedule() -> None:
    with pytest.raises(ValueError, match=r"TruncatedPES\(trunc_sched=None\): give the schedule that ends"):
        estimator_from_parts(TruncatedPES, **PARTS)


def test_an_unknown_option_is_rejected() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'stdd'"):
        estimator_from_parts(TruncatedPES, **PARTS, trunc_sched=ConstantTruncationSchedule(3), stdd=0.5)
