"""A worker without a process: its state and messages; the simulation schedules its actions.

An estimate is a function of (lane, seq, theta, the lane's state), and the state depends on all earlier
thetas. A replay with a wrong theta, an estimate applied twice, or a lane restored from a wrong state
therefore changes theta's bits.
"""

import dataclasses
import hashlib
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from learner.storage.snapshots import SnapshotRef
from protos import codec
from protos.rpc.send_queue import SendQueue
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import WorkerMessage
from tests.learner.builders import gradient_body, stream_reader

if TYPE_CHECKING:
    from tests.learner.simulation import Simulation

State = NDArray[np.float32]
_CHUNK_BYTES = 8


def init_state(lane: int, theta: bytes) -> State:
    """Return the state of a lane before its first estimate."""
    return _mix(np.zeros(4, np.float32), theta, lane, 0)


def estimate(lane: int, seq: int, theta: bytes, state: State) -> tuple[bytes, State]:
    """Return the body of a gradient and the next state."""
    state = _mix(state, theta, lane, seq)
    return gradient_body(float(state.sum())), state


def _mix(state: State, theta: bytes, lane: int, seq: int) -> State:
    seen = hashlib.sha256(state.tobytes() + theta + bytes([lane, seq % 256])).digest()[:16]
    return (np.frombuffer(seen, np.uint32) / np.float32(2**32) - np.float32(0.5)).astype(np.float32)


@dataclasses.dataclass
class HeldLane:
    """A lane that a worker holds."""

    lane: int
    fencing_token: int
    seq: int
    state: State
    leased: bool = True


class SimulatedWorker:
    """A simulated worker with a queue of messages in each direction."""

    def __init__(self, simulation: "Simulation", name: str, process_uuid: str) -> None:
        self.simulation = simulation
        self.name = name
        self.process_uuid = process_uuid
        self.lanes: dict[int, HeldLane] = {}
        self.unsettled: dict[int, WorkerMessage] = {}
        self.downlink = SendQueue()
        self.uplink: deque[WorkerMessage] = deque()
        self.theta: learner_pb2.ThetaAnnouncement | None = None
        self.identity: tuple[int, str] | None = None
        self.stream: SendQueue | None = None
        self.session_id = ""
        self.messages = 0
        self.draining = False
        self.gone = False

    def connect(self) -> None:
        """Join and open a stream; resend pushes without a final verdict."""
        held = [
            learner_pb2.HeldLane(lane=lane.lane, fencing_token=lane.fencing_token, seq=lane.seq)
            for lane in self.lanes.values()
        ]
        request = learner_pb2.JoinRequest(
            protocol_min=1, protocol_max=1, worker_name=self.name, process_uuid=self.process_uuid, held=held
        )
        core = self.simulation.core
        reply = core.join(request)
        self.session_id = reply.session_id
        identity = (core.run.term, self.session_id)
        if identity != self.identity:
            for lane in self.lanes.values():
                lane.leased = False
        self.identity = identity
        self.theta = None
        self.uplink = deque(self.unsettled.values())
        self.inbound = stream_reader(core, self.session_id, self.simulation.snapshots)
        attached = core.attach(reply.session_secret)
        assert attached is not None
        self.stream = self.downlink = attached[1]

    def disconnect(self) -> None:
        """Close the stream and drop all messages in transit to the learner."""
        if self.stream is not None:
            self.inbound.close()
            self.simulation.core.detach(self.session_id, self.stream)
        self.stream = None
        self.uplink.clear()

    def receive(self) -> None:
        """Handle the learner's next message."""
        message = next(iter(self.downlink))
        match message.WhichOneof("body"):
            case "theta":
                self.theta = message.theta
            case "grant":
                self._take(message.grant)
            case "revocation":
                lane = self.lanes.get(message.revocation.lane)
                if (
                    lane is not None
                    and lane.leased
                    and lane.fencing_token == message.revocation.fencing_token
                ):
                    self._give_back(lane)
            case "verdict":
                self._settle(message.verdict)
            case "drain":
                self.draining = True
            case "goodbye":
                self.disconnect()
                self.gone = message.goodbye.reason != learner_pb2.Goodbye.EXPIRED

    def compute(self) -> None:
        """Estimate the first lane whose theta has arrived, or leave if draining."""
        if self.draining:
            self._leave()
            return
        for lane in self.lanes.values():
            if lane.leased and self.theta is not None and self.theta.outer_step == lane.seq:
                self._estimate(lane, self.theta)
                return

    def send(self) -> None:
        """Pass the next message to the learner."""
        self.inbound.take(self.uplink.popleft())

    def _estimate(self, lane: HeldLane, theta: learner_pb2.ThetaAnnouncement) -> None:
        lane.seq += 1
        body, lane.state = estimate(lane.lane, lane.seq, theta.inline, lane.state)
        self.messages += 1
        push = learner_pb2.GradientEstimatorOut(
            push_id=self.messages,
            lane=lane.lane,
            fencing_token=lane.fencing_token,
            seq=lane.seq,
            outer_step=theta.outer_step,
            weight=1.0,
            grad=codec.tensors(body, self.messages, 1 << 20),
            unroll_info=learner_pb2.UnrollInfo(inner_steps=1),
            compute_s=1.0 + 2.0 * (ord(self.name[-1]) % 2),  # differs by worker, so lanes move
        )
        self.unsettled[self.messages] = WorkerMessage(push=push)
        self.uplink.append(self.unsettled[self.messages])
        if lane.seq % self.simulation.settings.checkpoint.every == 0:
            self._snapshot(lane)

    def _snapshot(self, lane: HeldLane) -> None:
        body = lane.state.tobytes()
        self.messages += 1
        snapshot = learner_pb2.Snapshot(
            lane=lane.lane,
            fencing_token=lane.fencing_token,
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
                lane_return=learner_pb2.LaneReturn(
                    lane=lane.lane, fencing_token=lane.fencing_token, seq=lane.seq
                )
            )
        )
        del self.lanes[lane.lane]

    def _take(self, grant: learner_pb2.LaneGrant) -> None:
        held = self.lanes.get(grant.lane)
        if held is not None and held.seq == grant.seq:
            held.fencing_token, held.leased = grant.fencing_token, True
            return
        self.simulation.seen["restored"] += 1
        self.simulation.seen["replayed"] += len(grant.replay_outer_steps)
        self.lanes[grant.lane] = HeldLane(grant.lane, grant.fencing_token, grant.seq, self._restored(grant))

    def _restored(self, grant: learner_pb2.LaneGrant) -> State:
        if grant.snapshot_seq:
            ref = SnapshotRef(grant.lane, grant.snapshot_seq, grant.snapshot_sha256)
            state = np.frombuffer(b"".join(self.simulation.snapshots.read(ref, 1 << 20)), np.float32)
        else:
            state = init_state(grant.lane, self._theta(grant.init_outer_step))
        for outer_step in grant.replay_outer_steps:
            _, state = estimate(grant.lane, outer_step + 1, self._theta(outer_step), state)
        return state

    def _theta(self, outer_step: int) -> bytes:
        published = self.simulation.core.run.thetas.get(outer_step)
        assert published is not None, f"theta {outer_step} is needed for a replay, and is no longer kept"
        return published.body

    def _settle(self, verdict: learner_pb2.PushVerdict) -> None:
        name = learner_pb2.Verdict.Name(verdict.verdict)
        assert name in ("ACCEPTED", "APPLIED", "DUPLICATE", "NOT_LEASED"), f"{name} {verdict.detail}"
        if name != "ACCEPTED":
            self.unsettled.pop(verdict.push_id, None)
        if name == "NOT_LEASED":
            # If the lane has been leased again with a newer fencing token, the verdict is for an older push.
            lane = self.lanes.get(verdict.lane)
            if lane is not None and lane.seq == verdict.seq:
                lane.leased = False

    def _leave(self) -> None:
        for lane in [lane for lane in self.lanes.values() if lane.leased]:
            self._give_back(lane)
        while self.uplink and self.stream is not None:
            self.send()
        self.simulation.core.leave(self.session_id, "drained")
        self.disconnect()
        self.gone = True
