"""Stack dumps: asked for through a worker's stream, answered while it works."""

from concurrent.futures import Future
from typing import Final

from learner.state import messages
from learner.state.run import Run
from learner.state.sessions import WorkerSession

_CHARACTERS: Final = 64 * 1024
_EVENT_CHARACTERS: Final = 8000


class Stacks:
    """Asks for stack dumps and hands each to its callers. At most one request to a worker is open."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def ask(self, session: WorkerSession) -> Future[str]:
        """Ask a worker; the answer may never come, so wait with a deadline and without the core's lock."""
        if session.stack is None:
            session.stack = Future()
        session.send(messages.stack_request())
        return session.stack

    def give_up(self, session: WorkerSession, asked: Future[str]) -> None:
        """Wait no longer for an answer."""
        if session.stack is asked:
            session.stack = None

    def record(self, session: WorkerSession) -> None:
        """Ask a worker, for the event log."""
        session.records_stack = True
        session.send(messages.stack_request())

    def take(self, session: WorkerSession, text: str) -> None:
        """Take an answer. One that was not asked for is dropped."""
        if session.records_stack:
            session.records_stack = False
            dump = text[:_EVENT_CHARACTERS]
            self._run.report("warning", "worker_stack", f"{session.name}:\n{dump}")
        if session.stack is not None:
            session.stack.set_result(text[:_CHARACTERS])
            session.stack = None
