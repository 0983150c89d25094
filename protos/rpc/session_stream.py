"""The serving side of `Learner.Session`: what binds a stream to its Join, and the threads that read."""

import abc
import threading
from collections.abc import Iterator
from typing import Any, Final

import grpc

from protos.rpc.send_queue import SendQueue
from protos.unspool.v1.learner_pb2 import LearnerMessage, WorkerMessage

SESSION_METADATA: Final = "unspool-session"
"""The header with the secret that the Join gave."""

_JOIN_READERS_S: Final = 5.0


class StreamReader(abc.ABC):
    """Takes what one stream brings, in order, in the stream's reading thread."""

    @abc.abstractmethod
    def take(self, message: WorkerMessage) -> None:
        """Act on a message. Nothing that a worker can send makes this raise."""

    @abc.abstractmethod
    def close(self) -> None:
        """Drop what was left half received; its sender begins again."""


class SessionStreams:
    """The open streams of one server. A stream has two threads: the pool's writes, one of its own reads."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def carry(
        self,
        name: str,
        messages: Iterator[WorkerMessage],
        reader: StreamReader,
        mailbox: SendQueue,
        context: Any,
    ) -> Iterator[LearnerMessage]:
        """Give `messages` to `reader`, and yield what `mailbox` gets, until either side is at its end.

        Args:
            name: of the reading thread.
            messages: what the worker says.
            reader: closed with the stream.
            mailbox: what the worker is told; closed with the stream.
            context: gRPC's, of this call.
        """
        if not context.add_callback(mailbox.close):
            mailbox.close()  # the call ended before it began
        thread = threading.Thread(target=self._read, args=(messages, reader, mailbox), name=name, daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()
        yield from mailbox

    def join_readers(self) -> None:
        """Wait for the reading threads, once the server has ended their streams."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(_JOIN_READERS_S)

    def _read(self, messages: Iterator[WorkerMessage], reader: StreamReader, mailbox: SendQueue) -> None:
        try:
            for message in messages:
                reader.take(message)
        except grpc.RpcError:
            pass  # the stream broke: what follows is the same as when it ends
        finally:
            reader.close()
            mailbox.close()
            with self._lock:
                self._threads.discard(threading.current_thread())
