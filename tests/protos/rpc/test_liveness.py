import pytest

from protos.rpc.liveness import has_progressed, phase_budget_s
from protos.unspool.v1.learner_pb2 import Heartbeat


@pytest.mark.parametrize("phase", [Heartbeat.COMPILING, Heartbeat.RESTORING])
def test_compiling_and_restoring_have_minutes(phase: Heartbeat.Phase) -> None:
    assert phase_budget_s(Heartbeat(phase=phase), [0.1]) == 15 * 60.0


@pytest.mark.parametrize("phase", [Heartbeat.IDLE, Heartbeat.DRAINING, Heartbeat.PHASE_UNSPECIFIED])
def test_waiting_has_no_limit(phase: Heartbeat.Phase) -> None:
    assert phase_budget_s(Heartbeat(phase=phase), [0.1]) is None


@pytest.mark.parametrize(
    ("compute_times_s", "budget_s"), [([], 15 * 60.0), ([0.1, 0.2], 60.0), ([7.0, 8.0, 90.0], 80.0)]
)
def test_an_estimate_has_ten_times_the_median_of_the_last_but_a_minute_at_least(
    compute_times_s: list[float], budget_s: float
) -> None:
    assert phase_budget_s(Heartbeat(phase=Heartbeat.COMPUTING), compute_times_s) == budget_s


@pytest.mark.parametrize(
    ("progress", "age_s", "resumed"), [(3, 70.0, False), (4, 70.0, True), (3, 1.0, True)]
)
def test_stuck_work_has_resumed_after_an_estimate_or_a_phase(
    progress: int, age_s: float, resumed: bool
) -> None:
    before = Heartbeat(progress=3, phase_age_s=61.0)
    now = Heartbeat(progress=progress, phase_age_s=age_s)
    assert has_progressed(before, now, stuck_at=3) is resumed
