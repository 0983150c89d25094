"""What the operator asks for: how many workers, which of them go, and whether theta moves."""

from concurrent.futures import Future

from learner import letters
from learner.departures import Departures
from learner.leases import Leases
from learner.quarantine import Quarantine
from learner.run import Run
from learner.scale import Scale, WorkerRange
from learner.sessions import WorkerSession
from learner.stacks import Stacks
from protos.unspool.v1.admin_pb2 import SupervisionNote
from protos.unspool.v1.learner_pb2 import Goodbye


class Operator:
    """Carries out commands. Callers serialise the calls, as with everything that changes a run."""

    def __init__(
        self, run: Run, leases: Leases, departures: Departures, quarantine: Quarantine, stacks: Stacks
    ) -> None:
        self._run = run
        self._leases = leases
        self._departures = departures
        self._quarantine = quarantine
        self._stacks = stacks

    def scale(self, workers: int) -> int:
        """Set how many workers are wanted; returns how many were.

        Raises:
            ValueError: more than may join.
        """
        most = self._run.settings.workers.max_count
        if not 0 <= workers <= most:
            raise ValueError(f"scale N = {workers}: must be from 0 to {most} (workers.max_count)")
        self._check_room(f"scale N = {workers}", workers)
        return self._want(Scale(workers))

    def scale_between(self, fewest: int, most: int) -> int:
        """Let the run choose how many workers it wants; returns how many it wanted.

        Raises:
            ValueError: that is no range, or more than may join.
        """
        bound = self._run.settings.workers.max_count
        if not 0 <= fewest <= most <= bound:
            rule = f"must be 0 <= MIN <= MAX <= {bound} (workers.max_count)"
            raise ValueError(f"scale MIN:MAX = {fewest}:{most}: {rule}")
        self._check_room(f"scale MIN:MAX = {fewest}:{most}", most)
        bounds = WorkerRange(fewest, most)
        lanes = self._run.settings.experiment.lanes
        return self._want(Scale(bounds.nearest(self._run.workers_desired, lanes), bounds))

    def note_supervision(self, note: SupervisionNote) -> None:
        """Keep what the supervisor of the workers says; what is new in it becomes events."""
        for problem in self._run.supervision.take(note):
            self._run.events.add("warning", "supervisor", problem.removeprefix("supervisor: "))

    def _check_room(self, said: str, workers: int) -> None:
        objection = self._run.supervision.objection(workers)
        if objection:
            raise ValueError(f"{said}: {objection}")

    def _want(self, scale: Scale) -> int:
        before = self._run.workers_desired
        self._run.workers_desired, self._run.workers_range = scale
        within = f", {scale.bounds.fewest} to {scale.bounds.most}" if scale.bounds else ""
        self._run.events.add("info", "scaled", f"{before} to {scale.workers} workers{within}")
        return before

    def drain(self, worker_name: str, reason: str, deadline_s: float) -> None:
        """Ask a worker to finish, return its lanes and leave.

        Raises:
            KeyError: there is no such worker.
        """
        session = self._named("drain", worker_name)
        session.draining = True
        self._run.send(session, letters.drain(reason, deadline_s))
        self._run.events.add("info", "worker_drained", f"{worker_name}: {reason[:200]}")

    def evict(self, worker_name: str, reason: str) -> None:
        """End a worker's session; its process ends, and whoever supervises it begins another one.

        Raises:
            KeyError: there is no such worker.
        """
        session = self._named("evict", worker_name)
        self._departures.close(session, Goodbye.EVICTED, reason)
        self._run.events.add("warning", "worker_evicted", f"{worker_name}: {reason[:200]}")

    def ask_for_stack(self, worker_name: str) -> Future[str]:
        """Ask what every thread of a worker is doing. Wait for the answer without the core's lock.

        Raises:
            KeyError: there is no such worker.
            ConnectionError: it has no stream at the moment.
        """
        session = self._named("stack", worker_name)
        if session.stream is None:
            raise ConnectionError(f"stack WORKER = {worker_name}: it has lost its connection to the learner")
        return self._stacks.ask(session)

    def give_up_stack(self, worker_name: str, asked: Future[str]) -> None:
        """Take note that nobody waits for a worker's answer any longer."""
        session = self._run.sessions.named(worker_name)
        if session is not None:
            self._stacks.give_up(session, asked)

    def reset_lane(self, number: int, *, fresh: bool) -> None:
        """Let a lane out of quarantine.

        Args:
            number: of the lane.
            fresh: whether its unrolls begin anew.

        Raises:
            KeyError: there is no such lane.
            ValueError: theta would depend on it.
        """
        if number >= len(self._run.lanes):
            raise KeyError(f"reset-lane LANE = {number}: there are lanes 0 to {len(self._run.lanes) - 1}")
        if fresh and self._run.aggregation.exact_versions:
            raise ValueError(
                f"reset-lane {number} --fresh: not in sync, where theta would depend on it; "
                "without --fresh the lane goes on where it was"
            )
        lane = self._run.lanes[number]
        self._quarantine.reset(lane)
        if fresh:
            self._leases.reset(lane, "it begins anew")
        self._leases.rebalance(self._run.clock())
        how = "from the beginning" if fresh else "where it was"
        self._run.events.add("info", "lane_reset", f"lane {number} goes on {how}")

    def pause(self) -> None:
        """Apply nothing until `resume`; workers go on until their credits are spent."""
        self._run.phase.paused = True
        self._run.events.add("info", "paused", f"at outer step {self._run.version}")

    def resume(self) -> None:
        """Go on."""
        self._run.phase.paused = False
        self._run.events.add("info", "resumed", f"at outer step {self._run.version}")

    def stop(self, *, now: bool, reason: str) -> None:
        """End the run after the running outer step, or now."""
        self._run.phase.stop(self._run.version, now=now)
        self._run.events.add("info", "stopping", reason)

    def _named(self, command: str, worker_name: str) -> WorkerSession:
        session = self._run.sessions.named(worker_name)
        if session is None:
            names = ", ".join(sorted(session.name for session in self._run.sessions)) or "none"
            raise KeyError(f"{command} WORKER = {worker_name}: there is no such worker; there are: {names}")
        return session
