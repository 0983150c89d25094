"""Admin commands: scale, drain and evict workers, reset lanes, pause, stop, save checkpoints."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from learner.coordination.checkpointing import Checkpoints
from learner.coordination.core_lock import CoreLock, LockedCommands, locked
from learner.coordination.leases import Leases
from learner.coordination.quarantine import Quarantine
from learner.coordination.stacks import Stacks
from learner.scale import Scale, WorkerRange
from learner.state.run import Run
from learner.state.sessions import WorkerSession
from learner.storage.checkpoint_store import CheckpointFile
from protos.unspool.v1.admin_pb2 import SupervisionNote
from protos.unspool.v1.learner_pb2 import Drain, Goodbye, LearnerMessage

_STACK_S: Final = 5.0


class WrongStateError(Exception):
    """Raised when a valid command cannot be carried out in the run's current state."""


class Admin(LockedCommands):
    """Executes admin commands."""

    def __init__(
        self,
        lock: CoreLock,
        run: Run,
        leases: Leases,
        quarantine: Quarantine,
        stacks: Stacks,
        checkpoints: Checkpoints,
        remember_scale: Callable[[Scale], None],
    ) -> None:
        super().__init__(lock)
        self._run = run
        self._leases = leases
        self._quarantine = quarantine
        self._stacks = stacks
        self._checkpoints = checkpoints
        self._remember_scale = remember_scale

    def scale(self, workers: int) -> tuple[Scale, Scale]:
        """Set the desired number of workers; return the previous and the new scale.

        Raises:
            ValueError: the number exceeds the number of workers that may join.
        """
        most = self._run.settings.workers.max_count
        if not 0 <= workers <= most:
            raise ValueError(f"scale N = {workers}: must be from 0 to {most} (workers.max_count)")
        return self._want(f"scale N = {workers}", workers, lambda before: Scale(workers))

    def scale_between(self, fewest: int, most: int) -> tuple[Scale, Scale]:
        """Enable autoscaling within a range of workers; return the previous and the new scale.

        Raises:
            ValueError: the range is invalid or exceeds the number of workers that may join.
        """
        bound = self._run.settings.workers.max_count
        said = f"scale MIN:MAX = {fewest}:{most}"
        if not 0 <= fewest <= most <= bound:
            raise ValueError(f"{said}: must be 0 <= MIN <= MAX <= {bound} (workers.max_count)")
        bounds, lanes = WorkerRange(fewest, most), self._run.settings.experiment.lanes
        return self._want(said, most, lambda before: Scale(bounds.nearest(before.workers, lanes), bounds))

    def _want(self, said: str, most: int, wanted_after: Callable[[Scale], Scale]) -> tuple[Scale, Scale]:
        with self._lock:
            lack = self._run.telemetry.supervision.lack_of_room(most)
            if lack:
                raise ValueError(f"{said}: {lack}")
            before = self._run.scale
            wanted = self._run.scale = wanted_after(before)
            within = f", {wanted.bounds.fewest} to {wanted.bounds.most}" if wanted.bounds else ""
            text = f"{before.workers} to {wanted.workers} workers{within}"
            self._run.report("info", "scaled", text)
        try:
            self._remember_scale(wanted)  # outside the lock, because the disk may be slow
        except OSError as error:
            text = f"the command could not be stored and is lost when the learner restarts: {error}"
            self._run.report("warning", "scale_forgotten", text)
        return before, wanted

    @locked
    def note_supervision(self, note: SupervisionNote) -> None:
        """Store the supervisor's report; record its new problems as events."""
        for problem in self._run.telemetry.supervision.take(note):
            self._run.report("warning", "supervisor", problem.removeprefix("supervisor: "))

    @locked
    def drain(self, worker_name: str, reason: str, deadline_s: float) -> None:
        """Ask a worker to finish, return its lanes and leave.

        Raises:
            KeyError: no worker has this name.
        """
        session = self._named("drain", worker_name)
        session.draining = True
        session.send(LearnerMessage(drain=Drain(reason=reason, deadline_s=deadline_s)))
        self._run.report("info", "worker_drained", f"{worker_name}: {reason[:200]}")

    @locked
    def evict(self, worker_name: str, reason: str) -> None:
        """End a worker's session; its process exits, and its supervisor starts a new one.

        Raises:
            KeyError: no worker has this name.
        """
        session = self._named("evict", worker_name)
        self._leases.close(session, Goodbye.EVICTED, reason)
        self._run.report("warning", "worker_evicted", f"{worker_name}: {reason[:200]}")

    def stack(self, worker_name: str) -> str:
        """Return the stack traces of all threads of a worker.

        Raises:
            KeyError: no worker has this name.
            ConnectionError: the worker has no open stream.
            TimeoutError: the worker did not answer in time.
        """
        try:
            return self.ask_for_stack(worker_name).result(_STACK_S)
        except TimeoutError:
            text = f"{worker_name} did not answer within {_STACK_S:.0f} s: its process may be suspended"
            raise TimeoutError(text) from None

    @locked
    def ask_for_stack(self, worker_name: str) -> Future[str]:
        """Request a worker's stack traces; the future may never complete."""
        session = self._named("stack", worker_name)
        if session.stream is None:
            raise ConnectionError(f"stack WORKER = {worker_name}: it has lost its connection to the learner")
        return self._stacks.ask(session)

    @locked
    def reset_lane(self, number: int, *, fresh: bool) -> None:
        """Release a lane from quarantine.

        Args:
            number: the lane's number.
            fresh: whether to restart the lane's unrolls.

        Raises:
            KeyError: the lane does not exist.
            WrongStateError: `fresh` is set in `sync`, where theta would depend on this command.
        """
        if number >= len(self._run.lanes):
            raise KeyError(f"reset-lane LANE = {number}: there are lanes 0 to {len(self._run.lanes) - 1}")
        if fresh and self._run.aggregation.exact_steps:
            raise WrongStateError(
                f"reset-lane {number} --fresh: not in sync, where theta would depend on it; "
                "without --fresh the lane continues where it was"
            )
        lane = self._run.lanes[number]
        self._quarantine.reset(lane)
        if fresh:
            self._leases.reset(lane, "it is reset")
        self._leases.rebalance(self._run.clock())
        how = "from the beginning" if fresh else "where it was"
        self._run.report("info", "lane_reset", f"lane {number} continues {how}")

    @locked
    def pause(self) -> None:
        """Apply no update until `resume`; workers continue until their credits are spent."""
        self._run.control.paused = True
        self._run.report("info", "paused", f"at outer step {self._run.outer_step}")

    @locked
    def resume(self) -> None:
        """Apply updates again."""
        self._run.control.paused = False
        self._run.report("info", "resumed", f"at outer step {self._run.outer_step}")

    @locked
    def stop(self, *, now: bool, reason: str) -> int:
        """End the run after the current outer step, or at once if `now`; return the current outer step."""
        self._run.control.stop(self._run.outer_step, now=now)
        self._run.report("info", "stopping", reason)
        return self._run.outer_step

    def save_checkpoint(self, timeout_s: float) -> CheckpointFile:
        """Write a checkpoint now; return after it is on disk.

        Raises:
            WrongStateError: the run has ended.
            TimeoutError: the checkpoint is not on disk within `timeout_s`.
            OSError: the checkpoint could not be written.
        """
        try:
            return self.request_checkpoint().result(timeout_s)
        except TimeoutError:
            raise TimeoutError(f"not written within {timeout_s:.0f} s") from None
        except OSError as error:
            raise OSError(f"could not be written: {error}") from error

    @locked
    def request_checkpoint(self) -> Future[CheckpointFile]:
        """Request a checkpoint of the current outer step; the future completes when it is on disk.

        Raises:
            WrongStateError: the run has ended.
        """
        if self._run.control.final is not None:
            raise WrongStateError(f"the run is {self._run.control.final}")
        return self._checkpoints.request()

    def _named(self, command: str, worker_name: str) -> WorkerSession:
        session = self._run.sessions.named(worker_name)
        if session is None:
            names = ", ".join(sorted(session.name for session in self._run.sessions)) or "none"
            raise KeyError(f"{command} WORKER = {worker_name}: there is no such worker; there are: {names}")
        return session
