import pytest

from protos.unspool.v1.learner_pb2 import Heartbeat, HeldLane, JoinRequest
from workers.relay.sessions import RelayedWorker, total_heartbeat


def connected(name: str, **heartbeat: object) -> RelayedWorker:
    worker = RelayedWorker(name, JoinRequest(worker_name=name), "secret", 0.0)
    worker.open_stream(0.0)
    worker.take_heartbeat(Heartbeat(**heartbeat))
    return worker


def test_a_relay_reports_the_sum_of_its_connected_workers():
    gone = connected("w2", resident_bytes=9, inner_steps_per_s=9.0)
    gone.stream = None
    workers = [
        connected("w0", resident_bytes=1, inner_steps_per_s=2.0),
        connected("w1", resident_bytes=3, inner_steps_per_s=4.0, workers=5),
        gone,
    ]
    total = total_heartbeat(workers, [HeldLane(lane=1)], progress=7)
    assert (total.resident_bytes, total.inner_steps_per_s, total.workers) == (4, 6.0, 6)
    assert (list(total.lanes), total.progress) == ([HeldLane(lane=1)], 7)


def test_its_phase_is_that_of_the_worker_with_the_latest_progress():
    workers = [
        connected("w0", phase=Heartbeat.COMPUTING, phase_age_s=9.0, waiting_for="lane 1"),
        connected("w1", phase=Heartbeat.COMPILING, phase_age_s=2.0, waiting_for="lane 2"),
        connected("w2", phase=Heartbeat.IDLE, phase_age_s=0.0),
    ]
    total = total_heartbeat(workers, [], 0)
    assert (total.phase, total.phase_age_s, total.waiting_for) == (Heartbeat.COMPILING, 2.0, "lane 2")


def test_a_stuck_worker_does_not_decide_the_phase():
    stuck = connected("w0", phase=Heartbeat.COMPUTING, phase_age_s=1.0)
    stuck.stuck_at = 3
    assert total_heartbeat([stuck], [], 0).phase == Heartbeat.IDLE


def test_an_idle_relay_waits_for_what_its_workers_wait_for():
    assert total_heartbeat([], [], 0).waiting_for == "a worker"
    assert total_heartbeat([connected("w0", waiting_for="theta")], [], 0).waiting_for == "theta"


def test_a_worker_that_is_connected_and_reports_can_work():
    assert connected("w0").can_work(now_s=9.0, heartbeat_s=5.0)


@pytest.mark.parametrize(
    "change", [{"stream": None}, {"stuck_at": 3}, {"draining": True}, {"last_message_s": -2.0}], ids=str
)
def test_a_worker_that_cannot_deliver_is_given_no_lanes(change):
    worker = connected("w0")
    for name, value in change.items():
        setattr(worker, name, value)
    assert not worker.can_work(now_s=9.0, heartbeat_s=5.0)


def test_a_relay_behind_a_relay_needs_workers_to_work():
    relay = RelayedWorker("r", JoinRequest(worker_name="r", relay=True), "secret", 0.0)
    relay.open_stream(0.0)
    assert not relay.can_work(1.0, 5.0)
    relay.take_heartbeat(Heartbeat(workers=2))
    assert relay.can_work(1.0, 5.0)


def test_a_worker_is_overdue_beyond_the_budget_of_its_phase():
    worker = connected("w0", phase=Heartbeat.COMPUTING, phase_age_s=100.0)
    assert not worker.is_overdue()  # no estimate yet: it may compile
    worker.compute_times_s.append(1.0)
    assert worker.is_overdue()
    worker.compute_times_s.append(60.0)
    assert not worker.is_overdue()
