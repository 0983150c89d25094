"""What estimators of whole episodes require of their schedules."""

from typing import Any

import pytest

from unspool.learned_optimizers.base import LearnableSGD
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    LogUniformLengthSchedule,
    NeverEndingTruncationSchedule,
    TruncationSchedule,
)
from unspool.systems.lorenz import LorenzFit
from unspool.tasks.quadratics import FixedDimQuadraticFamily

every_estimator = pytest.mark.parametrize("estimator", [FullES, FullGrad])
SYSTEM = VectorizedTruncatedStep(LorenzFit(), 2)


def training(schedule: TruncationSchedule) -> VectorizedLOptTruncatedStep:
    return VectorizedLOptTruncatedStep(FixedDimQuadraticFamily(3), LearnableSGD(), schedule, 2)


@every_estimator
def test_a_step_that_never_ends_and_a_system_without_a_schedule_are_accepted(estimator: Any) -> None:
    for step in (training(NeverEndingTruncationSchedule()), SYSTEM):
        assert estimator(step, ConstantTruncationSchedule(20)).truncated_step == step


@every_estimator
def test_a_step_with_a_schedule_of_its_own_is_rejected(estimator: Any) -> None:
    message = rf"{estimator.__name__}\(truncated_step with trunc_sched=Constant.*ends episodes itself"
    with pytest.raises(ValueError, match=message):
        estimator(training(ConstantTruncationSchedule(5)), ConstantTruncationSchedule(20))


@every_estimator
def test_an_episode_without_an_end_is_rejected(estimator: Any) -> None:
    with pytest.raises(ValueError, match="an episode needs a length"):
        estimator(SYSTEM, NeverEndingTruncationSchedule())


@every_estimator
@pytest.mark.unchecked
def test_a_number_in_place_of_a_schedule_is_rejected_with_an_example(estimator: Any) -> None:
    with pytest.raises(TypeError, match=r"truncation_schedule=20\): .* ConstantTruncationSchedule\(100\)"):
        estimator(SYSTEM, 20)


@every_estimator
def test_streamed_data_is_fetched_for_a_length_that_is_known(estimator: Any) -> None:
    assert estimator(SYSTEM, ConstantTruncationSchedule(17)).constant_length() == 17
    with pytest.raises(ValueError, match="needs a ConstantTruncationSchedule"):
        estimator(SYSTEM, LogUniformLengthSchedule(5, 20)).constant_length()


@pytest.mark.parametrize(("length", "steps"), [(17, 15), (3, 5), (20, 20)])
def test_full_es_fetches_data_for_whole_blocks_of_steps(length: int, steps: int) -> None:
    assert FullES(SYSTEM, ConstantTruncationSchedule(length), steps_per_jit=5).steps_of_data() == steps
