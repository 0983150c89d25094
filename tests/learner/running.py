"""A learner that listens on real ports, and a worker that sends hand-written messages."""

import contextlib
import dataclasses
import http.client
import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from learner.main import serve
from learner.settings import LearnerSettings
from learner.storage.run_directory import LearnerDirectory
from protos import codec
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc, learner_pb2, learner_pb2_grpc
from protos.unspool.v1.learner_pb2 import LearnerMessage, WorkerMessage
from tests.support.patience import PATIENCE_S


class RunningLearner:
    """`serve` in a thread of this process, stopped at the end of the `with` block."""

    def __init__(self, settings: LearnerSettings, *, takeover: bool = False) -> None:
        self.settings = settings
        self._takeover = takeover
        self.directory = LearnerDirectory(settings.run_dir)
        self.exit_code: int | None = None
        self.error: BaseException | None = None
        self._channels: list[Any] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="learner-under-test", daemon=True)

    def __enter__(self) -> "RunningLearner":
        before = self._announced()  # endpoints of a learner to take over
        self._thread.start()
        while (endpoints := self._announced()) is None or endpoints == before:
            if self._over.wait(0.01):
                raise self.error or AssertionError(f"exited with {self.exit_code}")
        self.endpoints = endpoints
        self.metadata = [("authorization", f"Bearer {self.settings.tokens.admin}")]
        self.learner = learner_pb2_grpc.LearnerStub(self.channel("learner"))
        self.admin = admin_pb2_grpc.AdminStub(self.channel("admin"))
        return self

    def __exit__(self, *_: object) -> None:
        if not self._over.is_set():
            with contextlib.suppress(grpc.RpcError):
                self.ask("Stop", admin_pb2.StopRequest(now=True))
        self.wait()
        for channel in self._channels:
            channel.close()

    def wait(self) -> int | None:
        """Wait until `serve` has returned."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the learner does not end"
        return self.exit_code

    def channel(self, plane: str) -> Any:
        self._channels.append(grpc.insecure_channel(self.endpoints[plane]))
        return self._channels[-1]

    def ask(self, method: str, request: Any) -> Any:
        """Call a method of the admin service."""
        return getattr(self.admin, method)(request, metadata=self.metadata, timeout=PATIENCE_S)

    def status(self) -> admin_pb2.Status:
        return self.ask("GetStatus", admin_pb2.GetStatusRequest())

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        """Send a request to the HTTP service; return the status and the body."""
        host, _, port = self.endpoints["http"].rpartition(":")
        with contextlib.closing(
            http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
        ) as connection:
            connection.request(method, path, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read()

    def _announced(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self.directory.endpoints.read_text()))
        except FileNotFoundError:
            return None

    def _serve(self) -> None:
        try:
            self.exit_code = serve(self.settings, takeover=self._takeover)
        except BaseException as error:  # raised in the test
            self.error = error
        self._over.set()


@dataclasses.dataclass
class HandWrittenWorker:
    """A worker whose messages are written by the test."""

    running: RunningLearner
    name: str = "w0"
    process_uuid: str = "i0"

    def __post_init__(self) -> None:
        self.messages: list[LearnerMessage] = []
        self.outgoing: queue.Queue[WorkerMessage | None] = queue.Queue()

    def join(self, held: list[learner_pb2.HeldLane] | None = None) -> learner_pb2.JoinReply:
        request = learner_pb2.JoinRequest(
            protocol_min=1,
            protocol_max=1,
            worker_name=self.name,
            process_uuid=self.process_uuid,
            held=held or [],
        )
        self.reply = self.running.learner.Join(request, metadata=self.running.metadata, timeout=PATIENCE_S)
        return self.reply

    def open(self) -> None:
        self.outgoing = queue.Queue()
        metadata = [*self.running.metadata, ("unspool-session", self.reply.session_secret)]
        self.call = self.running.learner.Session(
            iter(self.outgoing.get, None), metadata=metadata, timeout=PATIENCE_S
        )

    def enter(self) -> "HandWrittenWorker":
        self.join()
        self.open()
        return self

    def send(self, **body: Any) -> None:
        self.outgoing.put(WorkerMessage(**body))

    def send_body(self, body: bytes, transfer: int) -> None:
        for chunk in codec.chunks(body, transfer, self.reply.chunk_bytes):
            self.send(chunk=chunk)

    def hang_up(self) -> None:
        self.outgoing.put(None)

    def next(self, kind: str) -> Any:
        """Return the next message of a kind; messages up to it are stored in `messages`."""
        for message in self.call:
            self.messages.append(message)
            if message.HasField(kind):
                return getattr(message, kind)
        raise AssertionError(f"the stream ended without a {kind}")

    def grants(self, count: int) -> dict[int, learner_pb2.LaneGrant]:
        grants = [self.next("grant") for _ in range(count)]
        return {grant.lane: grant for grant in grants}

    def push(
        self, grant: learner_pb2.LaneGrant, seq: int, outer_step: int, body: bytes, **fields: Any
    ) -> learner_pb2.GradientEstimatorOut:
        """Send an estimate, in chunks if it is large."""
        transfer = grant.lane * 1000 + seq
        defaults: dict[str, Any] = {
            "push_id": transfer,
            "lane": grant.lane,
            "fencing_token": grant.fencing_token,
            "seq": seq,
            "outer_step": outer_step,
            "weight": 1.0,
            "mean_loss": 2.0,
            "grad": codec.tensors(body, transfer, self.reply.chunk_bytes),
        }
        push = learner_pb2.GradientEstimatorOut(**(defaults | fields))
        self.send(push=push)
        if push.grad.WhichOneof("body") == "transfer":
            self.send_body(body, transfer)
        return push

    def verdict(self) -> str:
        return learner_pb2.Verdict.Name(self.next("verdict").verdict)

    def fetch_theta(self, outer_step: int) -> bytes:
        request = learner_pb2.GetThetaRequest(outer_step=outer_step)
        chunks = self.running.learner.GetTheta(request, metadata=self.running.metadata, timeout=PATIENCE_S)
        return assemble(chunks, codec.body_bytes(self.reply.schema))

    def fetch_snapshot(self, lane: int, seq: int, size: int) -> bytes:
        request = learner_pb2.GetSnapshotRequest(lane=lane, seq=seq)
        chunks = self.running.learner.GetSnapshot(request, metadata=self.running.metadata, timeout=PATIENCE_S)
        return assemble(chunks, size)


def assemble(chunks: Iterator[Any], size: int) -> bytes:
    """Assemble a body from a stream of chunks."""
    assembler: codec.Assembler | None = None
    for chunk in chunks:
        assembler = assembler or codec.Assembler(chunk.transfer, size)
        assembler.add(chunk)
    assert assembler is not None
    return bytes(assembler.body())
