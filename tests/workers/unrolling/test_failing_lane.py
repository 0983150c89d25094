"""A lane whose estimates raise, with a real learner and real workers."""

from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1 import learner_pb2
from tests.workers.cluster import Cluster
from workers.unrolling.lane import LaneUnroll
from workers.unrolling.unroller import Unroller


@pytest.fixture
def lane_2_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = Unroller.estimate

    def raising(
        self: Unroller, lane: LaneUnroll, *rest: object
    ) -> tuple[LaneUnroll, learner_pb2.GradientEstimatorOut, bytes]:
        if lane.number == 2:
            raise FloatingPointError(f"estimate {id(lane):#x} of task {lane.seq}")
        return estimate(self, lane, *rest)

    monkeypatch.setattr(Unroller, "estimate", raising)


@pytest.mark.usefixtures("lane_2_raises")
def test_a_lane_that_always_fails_is_left_out_and_the_run_finishes_without_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, mode="async", batch=2, max_staleness=5)
    for restart in range(4):
        cluster.start_worker()
        if restart < 3:
            cluster.wait_for_end(f"w{restart}")
    status = cluster.finish()
    assert status["state"] == "FINISHED"
    assert status["lanes"][2]["state"] == "quarantined"
    assert "FloatingPointError" in status["lanes"][2]["problem"]
    assert cluster.codes == {f"w{restart}": ExitCode.FAILED for restart in range(3)} | {"w3": ExitCode.OK}
