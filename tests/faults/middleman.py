"""A gRPC proxy between workers and learner that loses, repeats, delays and reorders messages.

A TCP stream neither repeats nor reorders data, so faults are injected at the level of messages: replies are
lost with their stream, and requests arrive twice, late, or after later ones.
"""

import random
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from protos.unspool.v1.learner_pb2 import LearnerMessage, WorkerMessage

_SERVICE: Final = "unspool.v1.Learner"
_THREADS: Final = 32
_REMEMBERED: Final = 20
_JOIN_S: Final = 10.0
_FORWARDED: Final = ("authorization", "unspool-session")

Unit = list[WorkerMessage]


class Middleman:
    """A proxy that listens at `address` until the end of the block; `done` counts the injected faults."""

    def __init__(self, learner: str, seed: int, misfortune: float = 0.15) -> None:
        """Forward to the learner at `learner`; `misfortune` is the probability of each kind of fault per
        message.
        """
        self.done: Counter[str] = Counter()
        self._draws = random.Random(seed)
        self._misfortune = misfortune
        self._lock = threading.Lock()
        self._channel: Any = grpc.insecure_channel(learner, [("grpc.max_reconnect_backoff_ms", 200)])
        self._pool = ThreadPoolExecutor(_THREADS, "middleman")
        self._server: Any = grpc.server(self._pool)
        unary = grpc.unary_unary_rpc_method_handler
        handlers = {name: unary(self._unary(name)) for name in ("Join", "Leave")}
        stream = grpc.unary_stream_rpc_method_handler
        handlers |= {name: stream(self._download(name)) for name in ("GetTheta", "GetSnapshot")}
        handlers["Session"] = grpc.stream_stream_rpc_method_handler(self._session)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, handlers)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> "Middleman":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait(_JOIN_S)
        self._channel.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _unary(self, name: str) -> Any:
        call = self._channel.unary_unary(f"/{_SERVICE}/{name}")

        def forward(request: bytes, context: Any) -> bytes:
            try:
                return bytes(call(request, metadata=_metadata(context), timeout=context.time_remaining()))
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
                raise

        return forward

    def _download(self, name: str) -> Any:
        call = self._channel.unary_stream(f"/{_SERVICE}/{name}")

        def forward(request: bytes, context: Any) -> Iterator[bytes]:
            try:
                yield from call(request, metadata=_metadata(context), timeout=context.time_remaining())
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        return forward

    def _session(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        call = self._channel.stream_stream(f"/{_SERVICE}/Session")
        upstream = call(self._upwards(requests), metadata=_metadata(context))
        context.add_callback(upstream.cancel)
        try:
            yield from self._downwards(upstream)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        upstream.cancel()

    def _upwards(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        """Yield a worker's messages, some repeated at once, some repeated much later, some swapped with the
        next.
        """
        sent: deque[Unit] = deque(maxlen=_REMEMBERED)
        late: list[Unit] = []
        for unit in _units(requests):
            if self._happens("reordered"):
                late.append(unit)
                continue
            units = [unit, *late]
            late = []
            if self._happens("repeated"):
                units.append(unit)
            if sent and self._happens("replayed"):
                units.append(self._one_of(sent))
            sent.append(unit)
            yield from (message.SerializeToString() for one in units for message in one)

    def _downwards(self, upstream: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the learner's messages; at some point verdicts are lost, and then the stream ends."""
        dropped_left: int | None = None
        for data in upstream:
            is_verdict = LearnerMessage.FromString(data).HasField("verdict")
            if is_verdict and dropped_left is None and self._happens("streams cut", self._misfortune / 10):
                dropped_left = self._between(0, 3)
            if not is_verdict or dropped_left is None:
                yield data
                continue
            self.done["verdicts lost"] += 1
            dropped_left -= 1
            if dropped_left < 0:
                return

    def _happens(self, what: str, misfortune: float | None = None) -> bool:
        with self._lock:
            happens = self._draws.random() < (self._misfortune if misfortune is None else misfortune)
            self.done[what] += happens
            return happens

    def _between(self, least: int, most: int) -> int:
        with self._lock:
            return self._draws.randint(least, most)

    def _one_of(self, units: deque[Unit]) -> Unit:
        with self._lock:
            return self._draws.choice(units)


def _units(requests: Iterator[bytes]) -> Iterator[Unit]:
    """Yield messages with their chunks; messages without chunks overtake an incomplete body."""
    snapshot: Unit = []
    missing = 0
    for message in map(WorkerMessage.FromString, requests):
        if message.HasField("chunk"):
            snapshot.append(message)
            missing -= len(message.chunk.data)
        elif message.HasField("snapshot"):
            snapshot, missing = [message], message.snapshot.bytes
        else:
            yield [message]
        if snapshot and missing <= 0:
            yield snapshot
            snapshot = []


def _metadata(context: Any) -> list[tuple[str, str]]:
    return [(key, value) for key, value in context.invocation_metadata() if key in _FORWARDED]
