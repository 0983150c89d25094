"""Whatever workers do, and in whatever order, some things always hold of the core."""

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from learner.state.lanes import LaneState
from protos.unspool.v1.learner_pb2 import HeldLane, LaneReturn
from tests.learner.builders import Peer, make_core, update
from tests.support.clock import Clock

NAMES = ("w0", "w1", "w2")
LANES = 4
BATCH = 3
WINDOW = 2


class AsyncCore(RuleBasedStateMachine):
    """Workers of an `async` run, as badly behaved as the rules allow."""

    changes: ClassVar[dict[str, Any]] = {"mode": "async", "batch": BATCH, "staleness_weighting": "inverse"}

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.directory = tempfile.TemporaryDirectory()
        self.core = make_core(
            Path(self.directory.name),
            self.clock,
            lanes=LANES,
            max_staleness=WINDOW,
            credits=2,
            outer_steps=10_000,
            **self.changes,
        )
        self.peers: dict[str, Peer] = {}
        self.processes = 0
        self.applied: set[tuple[int, int]] = set()
        self.fences = [0] * LANES

    @rule(name=st.sampled_from(NAMES))
    def start_process(self, name: str) -> None:
        self.processes += 1
        self.peers[name] = Peer(self.core, name, f"i{self.processes}")

    @rule(name=st.sampled_from(NAMES), keep=st.booleans())
    def come_back(self, name: str, keep: bool) -> None:
        if name in self.peers:
            peer = self.peers[name]
            lanes = self.core.run.lanes
            held = [
                HeldLane(lane=lane, fencing_token=lanes[lane].fencing_token, seq=0) for lane in peer.lanes()
            ]
            peer.join(held if keep else [])
            peer.attach()

    @rule(name=st.sampled_from(NAMES))
    def break_stream(self, name: str) -> None:
        if name in self.peers and self.peers[name].stream is not None:
            self.peers[name].break_stream()

    @rule(
        name=st.sampled_from(NAMES),
        lane=st.integers(0, LANES),
        ahead=st.integers(-1, 3),
        staleness=st.integers(-1, 4),
        value=st.sampled_from([1.0, float("nan")]),
        compute_s=st.floats(0.0, 10.0),
    )
    def push(self, name: str, lane: int, ahead: int, staleness: int, value: float, compute_s: float) -> None:
        if name in self.peers:
            reached = self.core.run.lanes[lane].accepted if lane < LANES else 0
            outer_step = max(0, self.core.run.outer_step - staleness)
            about = {"value": value, "outer_step": outer_step, "compute_s": compute_s}
            self.peers[name].push(lane, max(0, reached + ahead), **about)

    @rule(name=st.sampled_from(NAMES), lane=st.integers(0, LANES - 1))
    def give_back(self, name: str, lane: int) -> None:
        if name in self.peers:
            record = self.core.run.lanes[lane]
            message = LaneReturn(lane=lane, fencing_token=record.fencing_token, seq=record.accepted)
            self.core.return_lane(self.peers[name].session_id, message)

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        if name in self.peers:
            self.core.leave(self.peers.pop(name).session_id, "test")

    @rule(seconds=st.floats(0.1, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.core.tick()

    @precondition(lambda self: self.core.updates.batch_due_in_s() == 0.0)
    @rule()
    def apply(self) -> None:
        outer_step = self.core.run.outer_step
        chosen = {(item.lane, item.seq, item.outer_step) for item in self.core.run.buffer}
        update(self.core)
        waiting = {(item.lane, item.seq, item.outer_step) for item in self.core.run.buffer}
        for lane, seq, outer_step in chosen - waiting:
            if self.core.run.lanes[lane].applied >= seq:
                assert (lane, seq) not in self.applied
                assert 0 <= outer_step - outer_step <= WINDOW
                self.applied.add((lane, seq))

    @invariant()
    def the_buffer_is_bounded(self) -> None:
        assert len(self.core.run.buffer) <= self.core.run.settings.buffer_items

    @invariant()
    def nothing_older_than_the_window_waits(self) -> None:
        assert all(self.core.run.outer_step - item.outer_step <= WINDOW for item in self.core.run.buffer)

    @invariant()
    def a_lane_is_leased_to_a_worker_that_is_known(self) -> None:
        for lane in self.core.run.lanes:
            assert (lane.state is LaneState.FREE) == (lane.holder is None)
            assert lane.holder is None or self.core.run.sessions.get(lane.holder) is not None

    @invariant()
    def fences_only_rise(self) -> None:
        fences = [lane.fencing_token for lane in self.core.run.lanes]
        assert all(new >= old for new, old in zip(fences, self.fences, strict=True))
        self.fences = fences

    @invariant()
    def watermarks_are_in_order(self) -> None:
        assert all(lane.applied <= lane.accepted for lane in self.core.run.lanes)

    def teardown(self) -> None:
        self.core.run.telemetry.events.close()
        self.directory.cleanup()


class QuorumCore(AsyncCore):
    """The same of a `quorum` run that learns how long to wait."""

    changes: ClassVar[dict[str, Any]] = {"mode": "quorum", "batch": LANES, "quorum": 0.5, "grace_s": None}


AsyncCore.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAsyncCore = AsyncCore.TestCase
QuorumCore.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestQuorumCore = QuorumCore.TestCase
