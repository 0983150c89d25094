"""A fake learner that sends the test's messages and stores the worker's."""

import hashlib
import queue
import threading
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from protos import codec
from protos.exit_codes import RefusedError
from protos.unspool.v1 import learner_pb2
from tests.support.experiments import QUADRATIC, toml_of
from tests.support.patience import PATIENCE_S
from unspool.experiment import Experiment
from unspool.lanes import theta_key
from workers.session.client import UnavailableError

EXPERIMENT = toml_of(QUADRATIC, "outer_steps=10", "outer_optimizer.learning_rate=0.01", "aggregation.lanes=4")


class FakeStream:
    """One stream: the learner's messages are put with `send`, the worker's are read from `messages`."""

    def __init__(self, outgoing: Iterable[learner_pb2.WorkerMessage]) -> None:
        self._incoming: queue.Queue[learner_pb2.LearnerMessage | Exception | None] = queue.Queue()
        self.messages: queue.Queue[learner_pb2.WorkerMessage | None] = queue.Queue()
        self._sender = threading.Thread(target=self._pull, args=(outgoing,), name="fake-sender", daemon=True)
        self._sender.start()

    def __iter__(self) -> Iterator[learner_pb2.LearnerMessage]:
        while (message := self._incoming.get()) is not None:
            if isinstance(message, Exception):
                raise message
            yield message

    def cancel(self) -> None:
        self._incoming.put(UnavailableError("cancelled"))

    def send(self, message: learner_pb2.LearnerMessage | Exception | None) -> None:
        self._incoming.put(message)

    def _pull(self, outgoing: Iterable[learner_pb2.WorkerMessage]) -> None:
        for message in outgoing:
            self.messages.put(message)
        self.messages.put(None)
        self.send(None)  # like the learner, which closes its side after the worker


class FakeLearner:
    """A fake learner whose theta at outer step `v` is the initial theta plus `v` hundredths."""

    def __init__(self, *, exact: bool = True, snapshot_every: int = 100) -> None:
        self._experiment = Experiment.from_toml(EXPERIMENT)
        self._theta = self._experiment.init.init(theta_key(self._experiment.seed))
        self.schema = codec.schema_of(self._theta)
        self.reply = learner_pb2.JoinReply(
            protocol=1,
            run_id="run",
            term=1,
            session_id="w0#1",
            session_secret="secret",
            heartbeat_s=60.0,
            orphan_ttl_s=600.0,
            chunk_bytes=1 << 16,
            schema=self.schema,
            experiment_toml=EXPERIMENT,
            lanes_total=4,
            snapshot_every=snapshot_every,
            exact_steps=exact,
        )
        self.joins: queue.Queue[learner_pb2.JoinRequest] = queue.Queue()
        self.join_errors: queue.SimpleQueue[Exception] = queue.SimpleQueue()
        self.streams: queue.Queue[FakeStream] = queue.Queue()
        self.snapshots: dict[tuple[int, int], bytes] = {}
        self.fetched: list[int] = []
        self.fetch_errors: queue.SimpleQueue[Exception] = queue.SimpleQueue()
        self.left: list[str] = []
        self._stream: FakeStream | None = None

    # Methods that the worker calls.

    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        if not self.join_errors.empty():
            raise self.join_errors.get()
        self.joins.put(request)
        reply = learner_pb2.JoinReply()
        reply.CopyFrom(self.reply)
        return reply

    def open_session(self, session_secret: str, outgoing: Iterable[learner_pb2.WorkerMessage]) -> FakeStream:
        stream = FakeStream(outgoing)
        self.streams.put(stream)
        return stream

    def get_theta(self, outer_step: int, size: int) -> codec.Buffer:
        if not self.fetch_errors.empty():
            raise self.fetch_errors.get()
        self.fetched.append(outer_step)
        return self.theta_body(outer_step)

    def get_snapshot(self, lane: int, seq: int, max_bytes: int) -> codec.Buffer:
        if (lane, seq) not in self.snapshots:
            raise RefusedError(f"NOT_FOUND: no snapshot of lane {lane} at {seq}")
        return self.snapshots[lane, seq]

    def leave(self, session_id: str, reason: str, *, is_unfit: bool = False) -> None:
        self.left.append(session_id)

    def close(self) -> None:
        pass

    # Methods that the test calls.

    @property
    def stream(self) -> FakeStream:
        """Wait for and return the worker's open stream."""
        if self._stream is None:
            self._stream = self.streams.get(timeout=PATIENCE_S)
        return self._stream

    def break_stream(self) -> None:
        self.stream.send(UnavailableError("the stream broke"))
        self._stream = None

    def next_message(self) -> learner_pb2.WorkerMessage | None:
        return self.stream.messages.get(timeout=PATIENCE_S)

    def next(self, kind: str) -> learner_pb2.WorkerMessage:
        """Return the worker's next message other than heartbeats, which must be of `kind`."""
        while True:
            message = self.next_message()
            assert message is not None, f"the worker closed its stream; expected {kind}"
            found = message.WhichOneof("body")
            if found == kind:
                return message
            assert found == "heartbeat", f"expected {kind}, got {message}"

    def next_push(self) -> learner_pb2.GradientEstimatorOut:
        return self.next("push").push

    def next_snapshot(self) -> learner_pb2.Snapshot:
        """Return a snapshot's header, after checking and storing its body."""
        snapshot = self.next("snapshot").snapshot
        assembler = codec.Assembler(snapshot.transfer, snapshot.bytes)
        while not assembler.complete:
            assembler.add(self.next("chunk").chunk)
        self.snapshots[snapshot.lane, snapshot.seq] = bytes(assembler.body())
        assert hashlib.sha256(assembler.body()).hexdigest() == snapshot.sha256
        return snapshot

    def send(self, **message: object) -> None:
        self.stream.send(learner_pb2.LearnerMessage(**message))

    def announce(self, outer_step: int, *, inline: bool = True) -> None:
        body = self.theta_body(outer_step)
        announcement = learner_pb2.ThetaAnnouncement(
            outer_step=outer_step, sha256=hashlib.sha256(body).hexdigest()
        )
        if inline:
            announcement.inline = body
        self.send(theta=announcement)

    def grant(
        self, lane: int, *, fencing_token: int = 1, seq: int = 0, snapshot_seq: int = 0, credits: int = 9
    ) -> None:
        """Grant a lane; in sync, with the replay from its snapshot to `seq`."""
        snapshot = self.snapshots.get((lane, snapshot_seq), b"")
        grant = learner_pb2.LaneGrant(
            lane=lane,
            fencing_token=fencing_token,
            seq=seq,
            snapshot_seq=snapshot_seq,
            snapshot_sha256=hashlib.sha256(snapshot).hexdigest(),
            replay_outer_steps=range(snapshot_seq, seq) if self.reply.exact_steps else (),
            credits=credits,
        )
        self.send(grant=grant)

    def revoke(self, lane: int, *, fencing_token: int = 1) -> None:
        self.send(
            revocation=learner_pb2.LaneRevocation(lane=lane, fencing_token=fencing_token, reason="moved")
        )

    def judge(
        self,
        push: learner_pb2.GradientEstimatorOut,
        verdict: learner_pb2.Verdict,
        *,
        outer_step: int = 0,
        credits: int = 9,
    ) -> None:
        self.send(
            verdict=learner_pb2.PushVerdict(
                push_id=push.push_id,
                lane=push.lane,
                seq=push.seq,
                verdict=verdict,
                outer_step=outer_step,
                credits=credits,
            )
        )

    def close_all(self, reason: learner_pb2.Goodbye.Reason) -> None:
        self.send(goodbye=learner_pb2.Goodbye(reason=reason))

    def theta_body(self, outer_step: int) -> bytes:
        theta = jax.tree.map(lambda leaf: np.asarray(leaf + 0.01 * outer_step, leaf.dtype), self._theta)
        return codec.encode(theta, self.schema)
