"""Stack dumps, requested over a worker's stream and answered while it computes."""

from concurrent.futures import Future
from typing import Final

from learner.state.run import Run
from learner.state.sessions import WorkerSession
from protos.unspool.v1.learner_pb2 import LearnerMessage, StackRequest

_CHARACTERS: Final = 64 * 1024
_EVENT_CHARACTERS: Final = 8000


class Stacks:
    """Requests stack dumps and delivers them to the callers.

    Each worker has at most one open request. After a timeout it stays open, for the next caller.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    def ask(self, session: WorkerSession) -> Future[str]:
        """Request a dump; it may never arrive, so wait with a timeout and without holding the core's lock."""
        if session.stack is None:
            session.stack = Future()
        session.send(LearnerMessage(stack_request=StackRequest()))
        return session.stack

    def record(self, session: WorkerSession) -> None:
        """Request a dump for the event log."""
        session.records_stack = True
        session.send(LearnerMessage(stack_request=StackRequest()))

    def take(self, session: WorkerSession, text: str) -> None:
        """Deliver a dump; drop it if it was not requested."""
        if session.records_stack:
            session.records_stack = False
            dump = text[:_EVENT_CHARACTERS]
            self._run.report("warning", "worker_stack", f"{session.name}:\n{dump}")
        if session.stack is not None:
            session.stack.set_result(text[:_CHARACTERS])
            session.stack = None
