from protos.unspool.v1 import learner_pb2
from tests.support.clock import Clock
from workers.unrolling.progress import Progress

Phase = learner_pb2.Heartbeat


def test_each_estimate_is_a_phase_of_its_own():
    clock = Clock()
    progress = Progress(clock)
    progress.enter(Phase.COMPUTING)
    clock.now_s += 5
    progress.enter(Phase.COMPUTING)
    clock.now_s += 2
    assert progress.heartbeat().phase_age_s == 2


def test_a_phase_of_work_names_its_lane_and_waiting_names_none():
    progress = Progress(Clock())
    progress.enter(Phase.COMPUTING, "lane 0", lane=0)
    assert progress.heartbeat().HasField("lane")
    progress.enter(Phase.IDLE, "a lane")
    assert not progress.heartbeat().HasField("lane")


def test_waiting_is_one_phase_whatever_it_is_for():
    clock = Clock()
    progress = Progress(clock)
    progress.enter(Phase.IDLE, "a lane")
    clock.now_s += 5
    progress.enter(Phase.IDLE, "a credit")
    heartbeat = progress.heartbeat()
    assert (heartbeat.phase_age_s, heartbeat.waiting_for) == (5, "a credit")


def test_the_pace_is_measured_over_recent_estimates_and_not_over_compilation():
    clock = Clock()
    progress = Progress(clock)
    progress.estimated(0.0, 1000, compiled=True)
    for began_s in (100.0, 101.0):
        clock.now_s = began_s + 1
        progress.estimated(began_s, 30, compiled=False)
    heartbeat = progress.heartbeat()
    assert (heartbeat.progress, heartbeat.inner_steps_per_s) == (3, 30.0)


def test_a_heartbeat_names_the_held_lanes_and_the_memory_in_use():
    progress = Progress(Clock())
    held = [learner_pb2.HeldLane(lane=3, fencing_token=2, seq=1)]
    progress.hold(held)
    heartbeat = progress.heartbeat()
    assert list(heartbeat.lanes) == held
    assert heartbeat.resident_bytes > 2**20
