"""What the threads of a worker are doing: asked for down its stream, answered beside its work."""

from concurrent.futures import Future
from typing import Final

from learner import letters
from learner.run import Run
from learner.sessions import WorkerSession

_CHARACTERS: Final = 64 * 1024
_EVENT_CHARACTERS: Final = 8000


class Stacks:
    """Asks for stack dumps, and hands each to whoever wants it. At most one question to a worker is open."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def ask(self, session: WorkerSession) -> Future[str]:
        """Ask a worker; the answer may never come, so wait with a deadline and without the core's lock."""
        if session.stack is None:
            session.stack = Future()
        self._run.send(session, letters.stack_request())
        return session.stack

    def give_up(self, session: WorkerSession, asked: Future[str]) -> None:
        """Wait no longer for an answer."""
        if session.stack is asked:
            session.stack = None

    def record(self, session: WorkerSession) -> None:
        """Ask a worker, for the event log."""
        session.records_stack = True
        self._run.send(session, letters.stack_request())

    def take(self, session: WorkerSession, text: str) -> None:
        """Take an answer. One that nobody has asked for is dropped."""
        if session.records_stack:
            session.records_stack = False
            dump = text[:_EVENT_CHARACTERS]
            self._run.events.add("warning", "worker_stack", f"{session.name}:\n{dump}")
        if session.stack is not None:
            session.stack.set_result(text[:_CHARACTERS])
            session.stack = None
