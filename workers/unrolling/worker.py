"""A worker from Join to Leave. Independent of Ray and gRPC: its client is passed in."""

import logging
import time
from collections.abc import Callable

import jax

from protos.exit_codes import ExitCode, RefusedError
from protos.messages import failure_message
from protos.unspool.v1 import learner_pb2
from unspool.failure_report import FailureReport
from workers.exits import End
from workers.session.client import LearnerClient, UnavailableError
from workers.session.learner_session import DRAIN_S, LearnerSession, thread_stacks
from workers.session.session_state import Command, Joined, Rejected, SessionState
from workers.settings import WorkerSettings, join_request
from workers.unrolling.progress import Progress
from workers.unrolling.workload import Workload

_logger = logging.getLogger(__name__)

_RETRY_S = 0.5
_REPORT_S = 2.0
_LOG_CHARACTERS = 8_000
_REASON_CHARACTERS = 200


class UnrollWorker:
    """One worker, from Join to Leave.

    All work happens in the thread that calls `run`; `drain` and `stack` may be called from any thread.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        client: LearnerClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a worker; nothing starts before `run`.

        Args:
            settings: of this process.
            client: connection to the learner; closed at the end.
            clock: monotonic seconds.
        """
        self._settings = settings
        self._client = client
        self._clock = clock
        self._session_state = SessionState()
        self._progress = Progress(clock)
        self._drain_command: learner_pb2.Drain | None = None
        self._workload: Workload | None = None
        self.end = End(ExitCode.FAILED, "it has not ended yet")
        self._session = LearnerSession(
            client,
            self._session_state,
            _join_request(settings),
            self._progress.heartbeat,
            clock=clock,
        )

    def run(self) -> int:
        """Work until the run is over, the learner is permanently unreachable, or this worker is drained.

        Returns:
            The process's exit code, an `ExitCode`.
        """
        _logger.info("%s looks for the learner at %s", self._settings.name, self._settings.learner)
        end = self.end = self._run()
        level = logging.INFO if end.code is ExitCode.OK else logging.ERROR
        _logger.log(level, "%s ends with %d: %s", self._settings.name, end.code, end.reason)
        return int(end.code)

    def drain(self, reason: str) -> None:
        """Finish the current estimate, return every lane, and return from `run`."""
        self._drain_command = self._drain_command or learner_pb2.Drain(reason=reason)
        self._session_state.wake()

    def stack(self) -> str:
        """Return the stack of every thread of this process."""
        return thread_stacks()

    def _run(self) -> End:
        self._session.start()
        try:
            return self._work()
        except RefusedError as refusal:
            report = FailureReport.of(refusal)
            return self._exit_after(End(ExitCode.REFUSED, str(refusal)), report if report.is_users else None)
        except Exception as error:
            return self._exit_after(End.crashed(error), FailureReport.of(error))
        finally:
            self._session.close()

    def _work(self) -> End:
        while True:
            # Read the revision first, so that `wait` returns at once if anything changes after this line.
            seen = self._session_state.revision
            for command in self._session_state.commands():
                self._execute(command)
            if self._session_state.end is not None:
                return self._session_state.end
            if self._drain_command is not None:
                return self._leave(self._drain_command)
            self._step(seen)

    def _execute(self, command: Command) -> None:
        match command, self._workload:
            case learner_pb2.Drain(), _:
                self._drain_command = self._drain_command or command
            case Joined(), Workload() as workload if workload.can_rejoin(command):
                workload.rejoin(command)
            case Joined(), _:
                self._workload = Workload(
                    command, self._client, self._session_state, self._progress, self._clock
                )
            case learner_pb2.LaneGrant(), Workload() as workload:
                workload.grant(command)
            case learner_pb2.LaneRevocation(), Workload() as workload:
                workload.revoke(command)
            case Rejected(), Workload() as workload:
                workload.take_rejection(command)

    def _step(self, seen: int) -> None:
        try:
            if self._workload is not None and self._workload.step():
                return
        except UnavailableError as error:
            self._idle(seen, f"the learner: {error}", _RETRY_S)
        else:
            self._idle(seen, self._waiting_for())

    def _idle(self, seen: int, waiting_for: str, timeout_s: float | None = None) -> None:
        self._progress.enter(learner_pb2.Heartbeat.IDLE, waiting_for)
        self._session_state.wait(seen, timeout_s)

    def _waiting_for(self) -> str:
        trouble = self._session.trouble
        if trouble is not None:
            return f"the learner: {trouble}"
        return self._workload.waiting_for() if self._workload is not None else "the learner's answer"

    def _leave(self, drain: learner_pb2.Drain) -> End:
        self._progress.enter(learner_pb2.Heartbeat.DRAINING, drain.reason)
        if self._workload is None:
            return End(ExitCode.OK, f"drained before the learner answered: {drain.reason}")
        self._workload.give_back(drain.reason)
        return self._session.leave_drained(drain.reason, drain.deadline_s or DRAIN_S)

    def _exit_after(self, end: End, report: FailureReport | None) -> End:
        text = f"worker {self._settings.name} exits {int(end.code)}: {end.reason}"
        failure = None if report is None else failure_message(*report)
        self._session_state.log("error", text[-_LOG_CHARACTERS:], failure)
        is_unfit = end.code is ExitCode.REFUSED
        why = f": {end.reason[:_REASON_CHARACTERS]}" if is_unfit else ""
        self._session.leave(f"exits {int(end.code)}{why}", _REPORT_S, is_unfit=is_unfit)
        return end


def _join_request(settings: WorkerSettings) -> learner_pb2.JoinRequest:
    request = join_request(settings)
    request.device_kind = jax.devices()[0].device_kind
    return request
