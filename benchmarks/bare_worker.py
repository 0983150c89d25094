"""A worker without computation: it pushes as fast as its credits permit, or only sends heartbeats.

`python -m benchmarks.bare_worker ADDRESS NAME STREAMS PUSHES_PER_STREAM` runs several workers in one process.
It prints "ready" when each has its lane, and then, for each line of standard input, the seconds that the
pushes took. With PUSHES_PER_STREAM 0 the workers only send heartbeats until standard input is closed.
"""

import itertools
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.bare_learner import TOKEN
from protos import codec
from protos.rpc.server import reuse_large_blocks
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.learner_pb2 import WorkerMessage
from workers.session.client import LearnerClient
from workers.session.outbox import QueuedMessage

_WINDOW = 8
_EXPECTED = (learner_pb2.ACCEPTED, learner_pb2.APPLIED, learner_pb2.NO_CREDIT)
"""A learner answers NO_CREDIT if its updates lag behind; the next push replaces the rejected one."""


class BareWorker:
    """One stream with one lane."""

    def __init__(self, address: str, name: str) -> None:
        self._client = LearnerClient(address, TOKEN)
        request = learner_pb2.JoinRequest(
            protocol_min=1, protocol_max=1, worker_name=name, process_uuid="i0", host="benchmark"
        )
        self.reply = self._client.join(request)
        self._outgoing: queue.SimpleQueue[Iterable[WorkerMessage] | None] = queue.SimpleQueue()
        messages = itertools.chain.from_iterable(iter(self._outgoing.get, None))
        self._stream = iter(self._client.open_session(self.reply.session_secret, messages))
        self.beat()
        self._seq = 0
        self._outer_step = 0
        self._credits = 0
        self._unanswered = 0
        self._accepted = 0
        self._grant = learner_pb2.LaneGrant()
        self.body = bytes(codec.body_bytes(self.reply.schema))

    def wait_for_lane(self) -> None:
        """Reads until the learner leases it a lane."""
        self._grant = self._next("grant")
        self._seq, self._credits = self._grant.seq, self._grant.credits

    def beat(self) -> None:
        """Sends a heartbeat."""
        heartbeat = learner_pb2.Heartbeat(phase=learner_pb2.Heartbeat.IDLE, waiting_for="nothing")
        self._outgoing.put([WorkerMessage(heartbeat=heartbeat)])

    def push(self) -> None:
        """Sends a push, in chunks if it is large."""
        while self._credits <= self._unanswered:
            self._read_verdict()
        self._seq += 1
        self._unanswered += 1
        grad = codec.tensors(self.body, self._seq, self.reply.chunk_bytes)
        push = learner_pb2.GradientEstimatorOut(
            push_id=self._seq,
            lane=self._grant.lane,
            fencing_token=self._grant.fencing_token,
            seq=self._seq,
            outer_step=self._outer_step,
            weight=1.0,
            mean_loss=1.0,
            grad=grad,
            compute_s=0.01,
        )
        body = self.body if grad.WhichOneof("body") == "transfer" else b""
        queued = QueuedMessage(WorkerMessage(push=push), body, transfer=self._seq)
        self._outgoing.put(queued.pieces(self.reply.chunk_bytes))

    def wait_for_acceptance(self, most_unanswered: int = 0) -> None:
        """Reads until at most `most_unanswered` pushes are unanswered."""
        while self._unanswered > most_unanswered:
            self._read_verdict()

    def push_many(self, count: int) -> None:
        """Sends pushes until `count` more were accepted; up to `_WINDOW` are unanswered at a time."""
        enough = self._accepted + count
        while self._accepted < enough:
            self.push()
            self.wait_for_acceptance(most_unanswered=min(_WINDOW, enough - self._accepted - 1))

    def close(self) -> None:
        """Closes the stream."""
        self._outgoing.put(None)
        self._client.close()

    def _read_verdict(self) -> None:
        verdict = self._next("verdict")
        assert verdict.verdict in _EXPECTED, verdict
        self._credits = verdict.credits
        self._unanswered -= verdict.verdict != learner_pb2.APPLIED
        self._accepted += verdict.verdict == learner_pb2.ACCEPTED

    def _next(self, kind: str) -> Any:
        for message in self._stream:
            if message.HasField("theta"):
                self._outer_step = message.theta.outer_step
            if message.HasField(kind):
                return getattr(message, kind)
        raise EOFError("the learner has closed the stream")


def main(address: str, name: str, streams: str, pushes: str) -> None:
    """Runs the streams of one process."""
    reuse_large_blocks()
    workers = [BareWorker(address, f"{name}-{number}") for number in range(int(streams))]
    for worker in workers:
        worker.wait_for_lane()
    print("ready", flush=True)
    if int(pushes):
        for _ in sys.stdin:
            start = time.perf_counter()
            with ThreadPoolExecutor(len(workers)) as pool:
                list(pool.map(lambda worker: worker.push_many(int(pushes)), workers))
            print(time.perf_counter() - start, flush=True)
    else:
        _beat_until_closed(workers)
    for worker in workers:
        worker.close()


def _beat_until_closed(workers: list[BareWorker]) -> None:
    is_over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), name="parent", daemon=True).start()
    for due in _evenly(workers[0].reply.heartbeat_s / len(workers)):
        if is_over.wait(max(0.0, due - time.perf_counter())):
            return
        workers.append(workers.pop(0))
        workers[0].beat()


def _evenly(period_s: float) -> Iterator[float]:
    due = time.perf_counter()
    while True:
        due += period_s
        yield due


if __name__ == "__main__":
    main(*sys.argv[1:])
