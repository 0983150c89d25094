from collections.abc import Callable, Iterator

from protos.unspool.v1 import learner_pb2
from workers.session.client import LearnerStream


class WatchedStream:
    """A wrapped stream that passes every message to a function first."""

    def __init__(self, stream: LearnerStream, look: Callable[[learner_pb2.LearnerMessage], None]) -> None:
        self._stream = stream
        self._look = look

    def __iter__(self) -> Iterator[learner_pb2.LearnerMessage]:
        for message in self._stream:
            self._look(message)
            yield message

    def cancel(self) -> None:
        self._stream.cancel()
