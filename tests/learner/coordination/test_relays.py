"""A relay as the learner sees it: one worker of many, or of none."""

from protos.unspool.v1 import learner_pb2
from tests.learner.builders import Peer, WatchedCore, make_core
from tests.support.clock import Clock


def make_relay(core: WatchedCore, workers: int) -> Peer:
    relay = Peer(core, "relay")
    relay.session.join_request.relay = True
    relay.beat(workers=workers)
    return relay


def test_a_relay_with_nobody_behind_it_gets_no_lanes(tmp_path):
    clock = Clock()
    core = make_core(tmp_path, clock, count=2)
    relay, worker = make_relay(core, workers=0), Peer(core)
    clock.advance(3.0)
    core.tick()
    assert relay.lanes() == []
    assert worker.lanes() == [0, 1, 2]


def test_a_relay_counts_as_the_workers_behind_it_when_lanes_first_go_out(tmp_path):
    core = make_core(tmp_path, count=2)
    relay = make_relay(core, workers=2)
    core.tick()
    assert relay.lanes() == [0, 1, 2]


def test_a_relay_gets_as_many_lanes_as_its_workers_would(tmp_path):
    core = make_core(tmp_path, count=3)
    relay, worker = make_relay(core, workers=2), Peer(core)
    core.tick()
    assert (len(relay.lanes()), len(worker.lanes())) == (2, 1)


def test_a_relays_unknown_device_is_no_other_device(tmp_path):
    core = make_core(tmp_path, count=2)
    request = learner_pb2.JoinRequest(
        protocol_min=1, protocol_max=1, worker_name="relay", process_uuid="i0", relay=True
    )
    Peer(core)
    core.join(request)
    assert not [event for event in core.run.telemetry.events.latest(10) if event.kind == "mixed_devices"]
