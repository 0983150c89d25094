"""A run without processes: the real core, files and arithmetic, and workers that a random schedule moves.

An estimate is a function of (lane, seq, theta, the lane's state), and the state remembers every theta it was
made with. So a replay with a wrong theta, an estimate applied twice, or a lane restored from the wrong state
changes theta's bits.
"""

import dataclasses
import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner.buffer import Contribution
from learner.checkpoint_store import CheckpointStore
from learner.checkpointing import CheckpointSchedule, SaveJob
from learner.core import LearnerCore
from learner.events import EventLog
from learner.inbound import Inbound
from learner.outer import OuterLearner
from learner.resume import restore
from learner.runtime import Runtime
from learner.saver import Saver
from learner.settings import LearnerSettings
from learner.snapshots import SnapshotRef, SnapshotStore
from protos import codec
from protos.mailbox import Mailbox
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import WorkerMessage
from tests.learner.builders import SCHEMA, Clock, gradient_body

State = NDArray[np.float32]
_CHUNK_BYTES = 8


def init_state(lane: int, theta: bytes) -> State:
    """The state of a lane before its first estimate."""
    return _mix(np.zeros(4, np.float32), theta, lane, 0)


def estimate(lane: int, seq: int, theta: bytes, state: State) -> tuple[bytes, State]:
    """A gradient's body, and the state after it."""
    state = _mix(state, theta, lane, seq)
    return gradient_body(float(state.sum())), state


def _mix(state: State, theta: bytes, lane: int, seq: int) -> State:
    seen = hashlib.sha256(state.tobytes() + theta + bytes([lane, seq % 256])).digest()[:16]
    return (np.frombuffer(seen, np.uint32) / np.float32(2**32) - np.float32(0.5)).astype(np.float32)


def straight_loop(settings: LearnerSettings, steps: int) -> list[str]:
    """Theta's digest at each version, without any of it."""
    outer = OuterLearner(settings.experiment, settings.batch)
    theta = outer.initialise()
    lanes = range(settings.experiment.lanes)
    states = [init_state(lane, theta.body) for lane in lanes]
    digests = [theta.sha256]
    for version in range(steps):
        batch = []
        for lane in lanes:
            body, states[lane] = estimate(lane, version + 1, theta.body, states[lane])
            leaves = codec.decode(body, SCHEMA)
            batch.append(Contribution(lane, version + 1, version, "w", 0, 1.0, 0.0, leaves, 1, 0.0))
        theta = outer.apply(version, batch).published
        digests.append(theta.sha256)
    return digests


@dataclasses.dataclass
class HeldLane:
    """A lane in a worker's memory."""

    lane: int
    incarnation: int
    seq: int
    state: State
    leased: bool = True


class SimulatedWorker:
    """A worker's process: its memory is gone when it is killed, its messages wait in two queues."""

    def __init__(self, simulation: "Simulation", name: str, incarnation: str) -> None:
        self.simulation = simulation
        self.name = name
        self.incarnation = incarnation
        self.lanes: dict[int, HeldLane] = {}
        self.unsettled: dict[int, WorkerMessage] = {}
        self.downlink = Mailbox()
        self.uplink: deque[WorkerMessage] = deque()
        self.theta: learner_pb2.ThetaAnnouncement | None = None
        self.identity: tuple[int, str] | None = None
        self.stream: int | None = None
        self.worker_id = ""
        self.messages = 0
        self.draining = False
        self.gone = False

    def connect(self) -> None:
        """Join and open a stream; what has no last word yet is said again."""
        held = [
            learner_pb2.HeldLane(lane=lane.lane, incarnation=lane.incarnation, seq=lane.seq)
            for lane in self.lanes.values()
        ]
        request = learner_pb2.JoinRequest(
            protocol_min=1, protocol_max=1, worker_name=self.name, incarnation=self.incarnation, held=held
        )
        with self.simulation.runtime.locked() as core:
            self.worker_id = core.join(request).worker_id
            identity = (core.run.epoch, self.worker_id)
        if identity != self.identity:
            for lane in self.lanes.values():
                lane.leased = False
        self.identity = identity
        self.theta = None
        self.uplink = deque(self.unsettled.values())
        self.inbound = Inbound(self.simulation.runtime, self.worker_id, SCHEMA, self.simulation.snapshots)
        attached = self.simulation.runtime.attach(self.worker_id)
        assert attached is not None
        self.stream, self.downlink = attached

    def disconnect(self) -> None:
        """Lose the stream, and with it everything that was under way."""
        if self.stream is not None:
            self.inbound.close()
            self.simulation.runtime.detach(self.worker_id, self.stream, self.downlink)
        self.stream = None
        self.uplink.clear()

    def hear(self) -> None:
        """Act on the learner's next message."""
        message = next(iter(self.downlink))
        match message.WhichOneof("body"):
            case "theta":
                self.theta = message.theta
            case "grant":
                self._take(message.grant)
            case "revocation":
                lane = self.lanes.get(message.revocation.lane)
                if lane is not None and lane.leased and lane.incarnation == message.revocation.incarnation:
                    self._give_back(lane)
            case "verdict":
                self._settle(message.verdict)
            case "drain":
                self.draining = True
            case "goodbye":
                self.disconnect()
                self.gone = message.goodbye.reason != learner_pb2.Goodbye.EXPIRED

    def compute(self) -> None:
        """Estimate the first lane whose theta is here, or leave if that was asked."""
        if self.draining:
            self._leave()
            return
        for lane in self.lanes.values():
            if lane.leased and self.theta is not None and self.theta.version == lane.seq:
                self._estimate(lane, self.theta)
                return

    def speak(self) -> None:
        """Let the learner read the next message."""
        self.inbound.take(self.uplink.popleft())

    def _estimate(self, lane: HeldLane, theta: learner_pb2.ThetaAnnouncement) -> None:
        lane.seq += 1
        body, lane.state = estimate(lane.lane, lane.seq, theta.inline, lane.state)
        self.messages += 1
        push = learner_pb2.GradientEstimatorOut(
            push_id=self.messages,
            lane=lane.lane,
            incarnation=lane.incarnation,
            seq=lane.seq,
            theta_version=theta.version,
            weight=1.0,
            grad=codec.tensors(body, self.messages, 1 << 20),
            unroll_info=learner_pb2.UnrollInfo(inner_steps=1),
            compute_s=1.0 + 2.0 * (ord(self.name[-1]) % 2),  # so that lanes move to the quick
        )
        self.unsettled[self.messages] = WorkerMessage(push=push)
        self.uplink.append(self.unsettled[self.messages])
        if lane.seq % self.simulation.settings.checkpoint_every == 0:
            self._snapshot(lane)

    def _snapshot(self, lane: HeldLane) -> None:
        body = lane.state.tobytes()
        self.messages += 1
        snapshot = learner_pb2.Snapshot(
            lane=lane.lane,
            incarnation=lane.incarnation,
            seq=lane.seq,
            bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            transfer=self.messages,
        )
        self.uplink.append(WorkerMessage(snapshot=snapshot))
        self.uplink.extend(
            WorkerMessage(chunk=chunk) for chunk in codec.chunks(body, self.messages, _CHUNK_BYTES)
        )

    def _give_back(self, lane: HeldLane) -> None:
        self._snapshot(lane)
        self.uplink.append(
            WorkerMessage(
                lane_return=learner_pb2.LaneReturn(lane=lane.lane, incarnation=lane.incarnation, seq=lane.seq)
            )
        )
        del self.lanes[lane.lane]

    def _take(self, grant: learner_pb2.LaneGrant) -> None:
        held = self.lanes.get(grant.lane)
        if held is not None and held.seq == grant.seq:
            held.incarnation, held.leased = grant.incarnation, True
            return
        self.simulation.seen["restored"] += 1
        self.simulation.seen["replayed"] += len(grant.replay_versions)
        self.lanes[grant.lane] = HeldLane(grant.lane, grant.incarnation, grant.seq, self._restored(grant))

    def _restored(self, grant: learner_pb2.LaneGrant) -> State:
        if grant.snapshot_seq:
            ref = SnapshotRef(grant.lane, grant.snapshot_seq, grant.snapshot_sha256)
            state = np.frombuffer(b"".join(self.simulation.snapshots.read(ref, 1 << 20)), np.float32)
        else:
            state = init_state(grant.lane, self._theta(grant.init_version))
        for version in grant.replay_versions:
            _, state = estimate(grant.lane, version + 1, self._theta(version), state)
        return state

    def _theta(self, version: int) -> bytes:
        published = self.simulation.core.run.ring.get(version)
        assert published is not None, f"theta {version} is needed for a replay, and is not in the ring"
        return published.body

    def _settle(self, verdict: learner_pb2.PushVerdict) -> None:
        name = learner_pb2.Verdict.Name(verdict.verdict)
        assert name in ("ACCEPTED", "APPLIED", "DUPLICATE", "NOT_LEASED"), f"{name} {verdict.detail}"
        if name != "ACCEPTED":
            self.unsettled.pop(verdict.push_id, None)
        if name == "NOT_LEASED":
            # The lane may be leased again under a newer incarnation; then this is about an older push.
            lane = self.lanes.get(verdict.lane)
            if lane is not None and lane.seq == verdict.seq:
                lane.leased = False

    def _leave(self) -> None:
        for lane in [lane for lane in self.lanes.values() if lane.leased]:
            self._give_back(lane)
        while self.uplink and self.stream is not None:
            self.speak()
        with self.simulation.runtime.locked() as core:
            core.leave(self.worker_id, "drained")
        self.disconnect()
        self.gone = True


class Simulation:
    """A learner, killed and restored from its files, and its workers."""

    def __init__(self, settings: LearnerSettings, draws: random.Random) -> None:
        self.settings = settings
        self.draws = draws
        self.clock = Clock()
        self.epoch = 0
        self.born = 0
        self.workers: list[SimulatedWorker] = []
        self.digests: dict[int, set[str]] = {}
        self.seen: Counter[str] = Counter()
        self.start_learner()

    def start_learner(self) -> None:
        """Begin a life of the learner from what is on disk."""
        self.epoch += 1
        directory = self.settings.run_dir
        self.snapshots = SnapshotStore(directory / "lanes")
        checkpoints = CheckpointStore(directory / "checkpoints", self.settings.checkpoint_keep)
        events = EventLog(directory / "events.jsonl")
        self.outer = OuterLearner(self.settings.experiment, self.settings.batch)
        run = restore(self.settings, self.epoch, self.outer, checkpoints, self.snapshots, events, self.clock)
        self.core = LearnerCore(run)
        self.runtime = Runtime(self.core)
        self.schedule = CheckpointSchedule(self.outer, self.settings.checkpoint_every)
        self.saver = Saver(self.runtime, checkpoints, self.snapshots)
        self.unfinished = False
        self.unwritten: list[SaveJob] = []
        self.note()

    def note(self) -> None:
        newest = self.core.run.ring.newest
        self.digests.setdefault(newest.version, set()).add(newest.sha256)

    def update(self) -> None:
        """Do the first half of what the update thread does: theta is out, and others may act on it."""
        if self.unfinished:
            return
        with self.runtime.locked() as core:
            batch = core.take_batch()
            if batch is not None:
                core.applied(self.outer.apply(core.run.version, batch))
                self.note()
        self.unfinished = batch is not None

    def finish_update(self) -> None:
        """Do the second half; what is to be written is written some time later."""
        self.unwritten += self.schedule.take(self.core.run)
        if self.unfinished:
            self.schedule.updated(self.core.run)
        self.unfinished = False
        if self.unwritten and self.draws.random() < 0.5:
            self.saver.save(self.unwritten.pop(0))

    def step(self) -> None:
        """Let one useful thing happen."""
        self.draws.choice(self.useful())()
        self.workers = [worker for worker in self.workers if not worker.gone]

    def useful(self) -> list[Callable[[], Any]]:
        useful: list[Callable[[], Any]] = [self.update, self.finish_update]
        for worker in self.workers:
            if worker.stream is None:
                useful.append(worker.connect)
                continue
            useful += [worker.hear] * bool(worker.downlink)
            useful += [worker.compute] * (not worker.downlink)
            useful += [worker.speak] * (2 * bool(worker.uplink))
        return useful

    def disturb(self) -> None:
        """Let one thing go wrong."""
        troubles = (
            self.add_worker,
            self.add_worker,
            self.kill_worker,
            self.break_stream,
            self.repeat,
            self.drain,
            self.silence,
            self.kill_learner,
            self.request_checkpoint,
            self.stop_and_resume,
            self.pause_and_drain,
        )
        trouble = self.draws.choice(troubles)
        self.seen[trouble.__name__] += 1
        trouble()

    def add_worker(self) -> None:
        if len(self.workers) < 3:
            self.born += 1
            taken = {worker.name for worker in self.workers}
            name = next(f"w{number}" for number in range(4) if f"w{number}" not in taken)
            self.workers.append(SimulatedWorker(self, name, f"i{self.born}"))

    def kill_worker(self) -> None:
        if self.workers:
            victim = self.draws.choice(self.workers)
            victim.disconnect()
            self.workers.remove(victim)

    def break_stream(self) -> None:
        if self.workers:
            self.draws.choice(self.workers).disconnect()

    def repeat(self) -> None:
        """Send a push again that has no last word yet."""
        for worker in self.workers:
            if worker.stream is not None:
                worker.uplink.extend(worker.unsettled.values())

    def drain(self) -> None:
        if self.core.run.sessions:
            victim = self.draws.choice(list(self.core.run.sessions))
            with self.runtime.locked() as core:
                core.operator.drain(victim.name, "test", 60.0)

    def silence(self) -> None:
        """Let time pass that some workers do not use to say anything."""
        for _ in range(3):
            self.clock.advance(13.0)
            with self.runtime.locked() as core:
                for worker in self.workers:
                    if worker.stream is not None and self.draws.random() < 0.7:
                        core.heartbeat(worker.worker_id, learner_pb2.Heartbeat())
                core.tick()

    def kill_learner(self) -> None:
        """Nothing of its memory survives; half-written files do."""
        for worker in self.workers:
            worker.disconnect()
        self.start_learner()

    def request_checkpoint(self) -> None:
        self.schedule.request()

    def stop_and_resume(self) -> None:
        """End this life in order, with a checkpoint of just now, and begin the next."""
        self.finish_update()
        for job in self.schedule.last(self.core.run):
            self.saver.save(job)
        self.kill_learner()

    def pause_and_drain(self) -> None:
        """Let everybody finish and go while theta stands still, so that lanes are ahead of it."""
        self.finish_update()
        for _ in range(200):
            self.let_workers_act()
        for session in list(self.core.run.sessions):
            with self.runtime.locked() as core:
                core.operator.drain(session.name, "test", 60.0)
        for _ in range(50):
            self.let_workers_act()
        self.draws.choice((self.stop_and_resume, self.request_checkpoint))()

    def let_workers_act(self) -> None:
        choices = [action for action in self.useful() if action not in (self.update, self.finish_update)]
        if choices:
            self.draws.choice(choices)()
        self.workers = [worker for worker in self.workers if not worker.gone]

    def run(self, steps: int, trouble: float) -> str:
        """Go on until theta is at version `steps`; returns its digest."""
        for _ in range(200_000):
            if self.core.run.version >= steps:
                return self.core.run.ring.newest.sha256
            if not self.workers:
                self.add_worker()
            if self.draws.random() < trouble:
                self.disturb()
            if self.draws.random() < 0.02:
                self.clock.advance(1.0)
                with self.runtime.locked() as core:
                    core.tick()
            self.step()
        raise AssertionError(f"stuck at version {self.core.run.version}")
