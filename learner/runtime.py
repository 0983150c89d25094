"""The core behind its lock: every thread reaches it through here, and its mail goes out from here."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from learner.core import LearnerCore
from protos.rpc.send_queue import SendQueue


class Runtime:
    """Serialises calls to a core, delivers what it wrote, and wakes the update thread when there is work."""

    def __init__(self, core: LearnerCore) -> None:
        self._core = core
        self._changed = threading.Condition()
        self._mailboxes: dict[str, SendQueue] = {}
        self._awaited: Callable[[LearnerCore], bool] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[LearnerCore]:
        """Hold the lock over a few calls to the core; when it is let go, their mail is delivered."""
        with self._changed:
            try:
                yield self._core
            finally:
                self._settle()

    def wait_until(self, ready: Callable[[LearnerCore], bool]) -> None:
        """Block the one thread that calls this until `ready` holds of the core."""
        with self._changed:
            self._awaited = ready
            while not ready(self._core):
                self._changed.wait(self._core.batch_due_in_s())
            self._awaited = None

    def attach(self, worker_id: str) -> tuple[int, SendQueue] | None:
        """Open a session's stream: its number and its mailbox, or None if the session has expired."""
        with self.locked() as core:
            stream = core.attach(worker_id)
            if stream is None:
                return None
            superseded = self._mailboxes.pop(worker_id, None)
            if superseded is not None:
                superseded.close()
            mailbox = self._mailboxes[worker_id] = SendQueue()
            return stream, mailbox

    def detach(self, worker_id: str, stream: int, mailbox: SendQueue) -> None:
        """Close a stream that ended."""
        mailbox.close()
        with self.locked() as core:
            if self._mailboxes.get(worker_id) is mailbox:
                del self._mailboxes[worker_id]
            core.detach(worker_id, stream)
            if mailbox.overflowed:
                core.run.events.add(
                    "warning", "worker_cut_off", f"{worker_id}: does not read what it is sent"
                )

    def responds(self, timeout_s: float) -> bool:
        """Whether the core can be called: no thread has hung while it held the lock."""
        is_free = self._changed.acquire(timeout=timeout_s)
        if is_free:
            self._changed.release()
        return is_free

    def hang_up(self) -> None:
        """End every stream once it has said what it has to say."""
        with self._changed:
            for mailbox in self._mailboxes.values():
                mailbox.close()

    def _settle(self) -> None:
        for worker_id, message in self._core.run.mail.take():
            mailbox = self._mailboxes.get(worker_id)
            if mailbox is not None:
                mailbox.put(message)
        # Whoever waits would only look and sleep again: it is woken when there is something to see, now or
        # at a time that it did not know of.
        if self._awaited is None:
            return
        if self._core.batch_due_in_s() is not None or self._awaited(self._core):
            self._changed.notify_all()
