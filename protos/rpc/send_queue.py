"""The bounded queue of messages to one worker, with at most one theta announcement."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from protos.unspool.v1.learner_pb2 import LearnerMessage

_CAPACITY: Final = 1024


class SendQueue:
    """The outgoing messages of one open stream. Any thread may put; one thread iterates until the close."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._messages: deque[LearnerMessage] = deque()
        self._theta: LearnerMessage | None = None
        self._closed = False
        self.overflowed = False

    def __len__(self) -> int:
        with self._changed:
            return len(self._messages)

    def put(self, message: LearnerMessage) -> None:
        """Queue a message. A goodbye closes the queue; so does an overflow, which drops all messages."""
        with self._changed:
            if self._closed:
                return
            if message.HasField("theta"):
                self._replace_theta(message)
            if len(self._messages) >= self._capacity:
                self._messages.clear()
                self.overflowed = self._closed = True
            else:
                self._messages.append(message)
                self._closed = message.HasField("goodbye")
            self._changed.notify()

    def close(self) -> None:
        """Close the queue; the iteration ends after the queued messages."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def __iter__(self) -> Iterator[LearnerMessage]:
        """Yield messages, oldest first, until the queue is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages or self._closed)
                if not self._messages:
                    return
                message = self._messages.popleft()
                if message is self._theta:
                    self._theta = None
            yield message

    def _replace_theta(self, message: LearnerMessage) -> None:
        # Only the newest theta is useful, and keeping more would cost memory if the worker reads slowly.
        if self._theta is not None:
            self._messages = deque(waiting for waiting in self._messages if waiting is not self._theta)
        self._theta = message
