"""Requirements on the schedules of estimators that unroll whole episodes and end them themselves."""

import zlib
from typing import TYPE_CHECKING

from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
    TruncationSchedule,
)

if TYPE_CHECKING:
    from unspool.outer_trainers.full_es import FullES
    from unspool.outer_trainers.full_grad import FullGrad

EPISODE_LENGTH_STREAM = zlib.crc32(b"episode length")
"""The random stream of episode lengths, separate from the split keys that golden values depend on."""


def check_whole_episodes(estimator: "FullES | FullGrad") -> None:
    """Check the schedules: the estimator must end episodes, and the step must not.

    Raises:
        ValueError: names the class, the schedule and a remedy.
        TypeError: `truncation_schedule` is not a schedule.
    """
    name, schedule = type(estimator).__name__, estimator.truncation_schedule
    if not isinstance(schedule, TruncationSchedule):
        raise TypeError(
            f"{name}(truncation_schedule={schedule!r}): give a TruncationSchedule, for instance "
            "ConstantTruncationSchedule(100)"
        )
    if isinstance(schedule, NeverEndingTruncationSchedule):
        raise ValueError(
            f"{name}(truncation_schedule=NeverEndingTruncationSchedule()): an episode needs a length"
        )
    of_step = getattr(estimator.truncated_step, "trunc_sched", None)
    if of_step is not None and not isinstance(of_step, NeverEndingTruncationSchedule):
        raise ValueError(
            f"{name}(truncated_step with trunc_sched={of_step}): {name} ends episodes itself; give the step "
            f"a NeverEndingTruncationSchedule and {name} the schedule"
        )


def steps_of_whole_episodes(estimator: "FullES | FullGrad") -> int:
    """Return the number of steps of streamed data that each call needs.

    Raises:
        ValueError: the number is not known before the length is drawn.
    """
    schedule = estimator.truncation_schedule
    if not isinstance(schedule, ConstantTruncationSchedule):
        raise ValueError(
            f"{type(estimator).__name__}(truncation_schedule={schedule}): a system that streams its data "
            "needs a ConstantTruncationSchedule, because its data is fetched before the length is drawn"
        )
    return schedule.total_length
