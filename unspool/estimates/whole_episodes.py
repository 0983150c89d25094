"""What estimators that unroll whole episodes, and end them themselves, ask of their schedules."""

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
"""The stream that lengths are drawn from, beside the keys that golden values fix by splitting."""


def check_whole_episodes(estimator: "FullES | FullGrad") -> None:
    """Refuses schedules that do not fit: the step must never end an episode, the estimator must.

    Raises:
        ValueError: names the class and the schedule, and says where it belongs.
        TypeError: `truncation_schedule` is no schedule.
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
    """Inner steps for which a system that streams its data must provide some at each call.

    Raises:
        ValueError: they are not known before the length is drawn.
    """
    schedule = estimator.truncation_schedule
    if not isinstance(schedule, ConstantTruncationSchedule):
        raise ValueError(
            f"{type(estimator).__name__}(truncation_schedule={schedule}): a system that streams its data "
            "needs a ConstantTruncationSchedule, for its data is fetched before the length is drawn"
        )
    return schedule.total_length
