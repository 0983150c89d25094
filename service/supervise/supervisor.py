"""Supervises a run: restarts the learner, keeps the number of workers, forwards stops."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from protos.exit_codes import (
    FailedError,
    InterruptedRunError,
    LearnerUnreachableError,
    RefusedError,
    UnspoolError,
    error_for,
)
from protos.unspool.v1.admin_pb2 import Status, StopRequest, SupervisionNote
from service.run.client import AdminClient
from service.run.last_status import DOWN
from service.run.supervision import as_lines
from service.supervise.fleet import Fleet
from service.supervise.learner_restarts import LearnerRestarts, cause_of

_ENDING: Final = ("STOPPING", "STOPPED", "FINISHED", "FAILED", "UNTRAINED")
_STOPPING: Final = ("STOPPING", "STOPPED")
_SILENCE_S = 120.0
_QUIET_S = 10.0
_START_S = 60.0
_LEAVE_S = 20.0
_STOP_S = 60.0
_SEND_AGAIN_S = 10.0


class Supervisor:
    """Supervises one run, one step at a time. Not thread-safe; never waits.

    Args:
        learner: its process and restarts.
        admin: client of its admin service.
        fleet: its workers.
        clock: monotonic seconds.
        follow: points `admin` to the learner process with this pid; returns the reason if workers cannot find
            that process, else "".
    """

    def __init__(
        self,
        learner: LearnerRestarts,
        admin: AdminClient,
        fleet: Fleet,
        clock: Callable[[], float],
        follow: Callable[[int], str] = lambda pid: "",
    ) -> None:
        self._learner = learner
        self._pid = learner.process.pid
        self._is_new = False
        self._follow = follow
        self._admin = admin
        self._fleet = fleet
        self._clock = clock
        self._status: Status | None = None
        self._answered_at = clock()
        self._stops_wanted = 0
        self._stops_sent = 0
        self._stopped_at = 0.0
        self._ended_at: float | None = None
        self._failure: UnspoolError | None = None
        self._refusal = ""
        self._unreachable = "the learner does not answer"
        self._sent: list[str] | None = None
        self._sent_at = 0.0

    @property
    def status(self) -> Status | None:
        """The learner's last status, with state `DOWN` while the learner is being restarted."""
        if self._status is not None and self._learner.is_down:
            self._status.state, self._status.waiting_for = DOWN, "the learner, which is restarted"
        return self._status

    @property
    def problems(self) -> list[str]:
        """Problems to show to people."""
        of_the_learner = [text for text in (self._learner.problem, self._refusal, self._silence) if text]
        return of_the_learner + self._fleet.problems

    @property
    def _silence(self) -> str:
        """The problem of a learner whose process runs but does not answer."""
        if not self._is_silent or self._learner.is_down or self._ended_at is not None:
            return ""
        return (
            f"{self._unreachable}; its process (pid {self._pid}) runs, and is killed after "
            f"{_SILENCE_S:.0f} s without an answer. If that address does not lead to this machine, correct "
            "learner.advertise"
        )

    @property
    def _is_silent(self) -> bool:
        return self._clock() - self._answered_at > _QUIET_S

    @property
    def ends(self) -> Mapping[str, tuple[int, str]]:
        """How many processes of each worker ended without being requested to, and how the last one ended."""
        return self._fleet.ends

    def ask_to_stop(self, times: int) -> None:
        """Stop the run with a checkpoint; the second time, without waiting for the running outer step.

        A learner that is down is not restarted for this, because its newest checkpoint is on disk.
        """
        self._stops_wanted = max(self._stops_wanted, times)
        if self._stops_wanted:
            self._learner.stop_restarting()

    def kill(self) -> None:
        """Kill the learner and every worker."""
        self._learner.stop_restarting()
        self._learner.kill()
        self._fleet.kill()

    def step(self) -> bool:
        """Do what is due; return whether the run has ended and all its processes with it.

        Raises:
            UnspoolError: the run has ended, but not successfully.
        """
        exit_code = self._learner.poll()
        if exit_code is not None:
            return self._finish(exit_code)
        if self._learner.is_down:
            self._fleet.reap()
            return False
        self._notice_restart()
        self._forward_stops()
        try:
            self._status = self._admin.status()
        except LearnerUnreachableError as error:
            self._unreachable = str(error).partition(": ")[0]  # the rest differs between calls
            self._check_silence()
        except RefusedError as error:
            # The learner runs and training continues: expired certificates are no reason to end a run.
            self._answered_at, self._refusal = self._clock(), str(error)
            self._fleet.reap()
        else:
            self._refusal = ""
            self._answered_at = self._clock()
            self._update_learner(self._status)
            self._update_workers(self._status)
            self._send_note(self._status)
        return False

    def _send_note(self, status: Status) -> None:
        """Send the learner what only the supervisor knows, for the status, whenever it has changed."""
        note = SupervisionNote(
            problems=as_lines(self.problems, self.ends),
            absent_workers=self._fleet.absent({worker.name for worker in status.workers}),
        )
        most = self._fleet.most_workers
        if most is not None:
            note.most_workers, note.most_workers_reason = most
        content = [*note.problems, *(f"{one.name} {one.state}" for one in note.absent_workers)]
        if content == self._sent and self._clock() - self._sent_at < _SEND_AGAIN_S:
            return
        with contextlib.suppress(UnspoolError):  # retried at the next step
            self._admin.ask(note)
            self._sent, self._sent_at = content, self._clock()

    def _update_learner(self, status: Status) -> None:
        self._learner.moved(status.outer_step)
        if status.state in _STOPPING:
            self._learner.stop_restarting()  # a restarted learner would not know that it was asked to stop
        if self._is_new:
            self._is_new = False
            self._find()

    def _update_workers(self, status: Status) -> None:
        if status.state in _ENDING:
            self._fleet.reap()
            return
        self._fleet.reconcile(status)
        if self._fleet.has_given_up and not status.workers and self._failure is None:
            self._failure = FailedError(
                "all workers have failed, and none is restarted:\n" + "\n".join(self.problems)
            )
            self.ask_to_stop(2)

    def _notice_restart(self) -> None:
        if self._learner.process.pid == self._pid:
            return
        self._pid, self._is_new = self._learner.process.pid, True
        self._answered_at = self._clock() + _START_S  # allow it time to start before it must answer

    def _find(self) -> None:
        problem = self._follow(self._pid)
        if problem and self._failure is None:
            self._failure = InterruptedRunError(f"{problem}; launch again to resume")
            self.ask_to_stop(2)

    def _check_silence(self) -> None:
        self._find()
        if self._clock() - self._answered_at > _SILENCE_S:
            verdict = f"has not answered for {_SILENCE_S:.0f} s and was killed"
            if self._stops_wanted:
                self._failure = self._failure or InterruptedRunError(f"the learner {verdict}")
            self._learner.kill(verdict)

    def _forward_stops(self) -> None:
        if self._stops_sent and self._clock() - self._stopped_at > _STOP_S:
            self._stops_wanted = self._stops_sent + 1
        if self._stops_wanted <= self._stops_sent:
            return
        if self._stops_wanted > 2:
            self._failure = self._failure or InterruptedRunError("the learner did not stop and was killed")
            self._learner.kill()
            return
        try:
            self._admin.ask(StopRequest(now=self._stops_wanted == 2))
        except LearnerUnreachableError:
            if not self._is_silent:
                return  # retried at the next step
            self._learner.process.terminate()
        except UnspoolError:
            return
        self._stops_sent, self._stopped_at = self._stops_wanted, self._clock()

    def _finish(self, exit_code: int) -> bool:
        """Finish after the learner has ended. Workers end by themselves if it closed their sessions."""
        now = self._clock()
        self._ended_at = now if self._ended_at is None else self._ended_at
        ended_for_s = now - self._ended_at
        self._fleet.reap()
        if exit_code != 0 or ended_for_s > _LEAVE_S:
            self._fleet.kill()
            self._fleet.reap()
        if self._fleet.running and ended_for_s < 2 * _LEAVE_S:
            return False
        if self._failure is None and exit_code != 0:
            self._failure = self._failure_of(exit_code)
        if self._failure is not None:
            raise self._failure
        return True

    def _failure_of(self, exit_code: int) -> UnspoolError:
        if self._learner.has_given_up_restarting:
            text = f"{self._learner.problem}; launch again to resume. {self._learner.process.last_log_line()}"
            return InterruptedRunError(text)
        return failure_of(exit_code, self._learner.process.last_log_line())


def failure_of(exit_code: int, last_log_line: str) -> UnspoolError:
    """Return the error of a learner that has ended: its own error, or that it was killed."""
    if exit_code < 0:
        return InterruptedRunError(
            f"the learner {cause_of(exit_code)}; launch again to resume. {last_log_line}"
        )
    return error_for(exit_code, last_log_line)
