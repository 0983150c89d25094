"""A relay without processes; the test acts as the learner and as the workers."""

import itertools
from typing import Any

import numpy as np

from protos import codec
from protos.unspool.v1 import learner_pb2
from tests.support.clock import Clock
from tests.support.patience import PATIENCE_S
from tests.workers.fake_learner import FakeStream
from workers.relay.core import RelayCore
from workers.session.session_state import Joined, SessionState

SCHEMA = codec.schema_of([np.zeros(3, np.float32), np.zeros((), np.float32)])
TTL_S = 30.0


def body(*values: float) -> bytes:
    """Return four numbers as the bytes of a gradient; a single number is repeated."""
    return np.asarray(values if len(values) == 4 else values * 4, np.float32).tobytes()


class Peer:
    """A worker behind the relay, acting through the relay's service methods."""

    def __init__(self, node: "RelayNode", name: str, process_uuid: str, held: Any = ()) -> None:
        self._node = node
        self.name = name
        self._push_ids = itertools.count(1)
        request = learner_pb2.JoinRequest(
            protocol_min=1, protocol_max=1, worker_name=name, process_uuid=process_uuid, held=held
        )
        self.reply = node.core.join(request)
        self.session_id, self._stream = node.core.attach(self.reply.session_secret)

    def received(self, kind: str) -> list[Any]:
        """Return the messages of one kind received since the last call."""
        taking = iter(self._stream)
        messages = [next(taking) for _ in range(len(self._stream))]
        return [getattr(message, kind) for message in messages if message.HasField(kind)]

    def beat(self, **fields: Any) -> None:
        self.send("heartbeat", learner_pb2.Heartbeat(**fields))

    def send(self, kind: str, message: Any) -> None:
        self._node.core.message(self.session_id, kind, message)

    def break_stream(self) -> None:
        self._node.core.detach(self.session_id, self._stream)

    def push(
        self, grant: learner_pb2.LaneGrant, seq: int, data: bytes, **fields: Any
    ) -> learner_pb2.GradientEstimatorOut:
        defaults = {"push_id": next(self._push_ids), "weight": 1.0, "outer_step": 0}
        push = learner_pb2.GradientEstimatorOut(
            lane=grant.lane,
            fencing_token=grant.fencing_token,
            seq=seq,
            grad=codec.tensors(data, 1, 1 << 16),
            **(defaults | fields),
        )
        self._node.core.push(self.session_id, push, data)
        return push


class RelayNode:
    """A relay that has joined, and its messages to the learner."""

    def __init__(self, client: Any = None, *, merges: bool = False, max_workers: int = 4) -> None:
        self.clock = Clock()
        self.session_state = SessionState(forwards=True)
        self.core = RelayCore(self.session_state, client, max_workers, self.clock)
        self.reply = learner_pb2.JoinReply(
            run_id="run",
            term=1,
            session_id="relay#1",
            heartbeat_s=5.0,
            lease_ttl_s=TTL_S,
            chunk_bytes=1 << 16,
            schema=SCHEMA,
            lanes_total=8,
            exact_steps=not merges,
            merges=merges,
        )
        self.join(fresh=True)

    def join(self, *, fresh: bool, held: frozenset[tuple[int, int]] = frozenset()) -> None:
        self.session_state.joined(Joined(self.reply, held, fresh))
        self._stream = FakeStream(self.session_state.new_stream(self.core.report))
        self._execute()

    def worker(self, name: str, process_uuid: str = "i0", held: Any = ()) -> Peer:
        return Peer(self, name, process_uuid, held)

    def receive(self, **message: Any) -> None:
        self.session_state.receive(learner_pb2.LearnerMessage(**message))
        self._execute()

    def grant(
        self, lane: int, fencing_token: int = 7, *, seq: int = 0, credits: int = 9
    ) -> learner_pb2.LaneGrant:
        grant = learner_pb2.LaneGrant(lane=lane, fencing_token=fencing_token, seq=seq, credits=credits)
        self.receive(grant=grant)
        return grant

    def judge(
        self,
        push: learner_pb2.GradientEstimatorOut,
        verdict: learner_pb2.Verdict,
        credits: int = 9,
        parts: Any = (),
    ) -> None:
        about = learner_pb2.PushVerdict(
            push_id=push.push_id, verdict=verdict, outer_step=3, credits=credits, parts=parts
        )
        self.receive(verdict=about)

    def pass_time(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.core.tick()

    def sent(self, kind: str) -> Any:
        """Return the next message to the learner of a kind, skipping heartbeats."""
        while True:
            message = self._stream.messages.get(timeout=PATIENCE_S)
            found = message.WhichOneof("body")
            if found == kind:
                return getattr(message, kind)
            assert found == "heartbeat", f"expected {kind}, got {message}"

    def _execute(self) -> None:
        for command in self.session_state.commands():
            if isinstance(command, Joined):
                self.core.joined(command)
            elif isinstance(command, learner_pb2.LearnerMessage):
                self.core.receive(command)
