"""Leasing: which worker gets which lane, and what becomes of the lanes of one that goes."""

from learner import letters
from learner.assignment import Candidate, assign, surplus
from learner.lanes import Lane, LaneState
from learner.run import Run
from learner.sessions import SessionState, WorkerSession


class Leases:
    """Moves lanes between workers."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._gathering_until_s: float | None = None
        self._gathered = False

    def credits(self, worker_id: str) -> int:
        """Return how many further pushes the worker may have outstanding.

        Only pushes of lanes that it leases now count against it. One of a lane that has moved on must not
        keep it from pushing the others: in `sync` the update that would settle the one waits for these.
        """
        held = {lane.number for lane in self._run.lanes.held_by(worker_id)}
        return max(0, self._run.settings.credits_per_lane * len(held) - self._run.buffer.count(held))

    def resume(self, session: WorkerSession) -> None:
        """Let a worker that joined again keep the lanes whose leases it still has; free the others."""
        held = {(lane.lane, lane.incarnation) for lane in session.introduction.held}
        for lane in self._run.lanes.held_by(session.worker_id):
            if (lane.number, lane.incarnation) in held:
                # Whether it ever read of a revocation is not known; if it is still due, it is said again.
                lane.state = LaneState.GRANTED
            else:
                self._run.lanes.release(lane)

    def release_all(self, session: WorkerSession) -> list[int]:
        """End every lease of a worker; returns the lanes."""
        lost = self._run.lanes.held_by(session.worker_id)
        for lane in lost:
            self._run.lanes.release(lane)
        return [lane.number for lane in lost]

    def rebalance(self, now_s: float) -> None:
        """Lease free lanes, and ask for some back where loads are uneven."""
        candidates = self._candidates(now_s)
        if not candidates or not self._has_gathered(len(candidates), now_s):
            return
        free = {lane.number: lane.reached for lane in self._run.lanes.free()}
        for number, worker_id in assign(free, candidates):
            self._grant(self._run.lanes[number], worker_id)
        on_the_way = sum(self._is_coming(lane) for lane in self._run.lanes)
        for worker_id in surplus(self._candidates(now_s), on_the_way):
            self._revoke_one(worker_id)

    def _candidates(self, now_s: float) -> list[Candidate]:
        able = [
            session
            for session in self._run.sessions
            if session.state(now_s, self._run.settings.heartbeat_s) is SessionState.ACTIVE
        ]
        return [
            Candidate(session.worker_id, len(self._kept(session.worker_id)), session.held) for session in able
        ]

    def _kept(self, worker_id: str) -> list[Lane]:
        return [lane for lane in self._run.lanes.held_by(worker_id) if lane.state is LaneState.GRANTED]

    def _has_gathered(self, workers: int, now_s: float) -> bool:
        """Whether the first lanes may go out: all wanted workers are here, or the others took too long.

        Without this, the first to come would get every lane and be asked for some back while it still
        compiles; and after a restart of the learner it would get those whose states the others hold.
        """
        if self._gathering_until_s is None:
            self._gathering_until_s = now_s + self._run.settings.gather_s
        self._gathered = (
            self._gathered
            or workers >= self._run.settings.workers_desired
            or now_s >= self._gathering_until_s
        )
        return self._gathered

    def _grant(self, lane: Lane, worker_id: str) -> None:
        self._run.lanes.grant(lane, worker_id)
        credits_left = self.credits(worker_id)
        exact, version = self._run.aggregation.exact_versions, self._run.version
        message = letters.grant(lane, version, exact=exact, credits_left=credits_left)
        self._run.mail.send(worker_id, message)

    def _revoke_one(self, worker_id: str) -> None:
        # One whose estimate for the running outer step has come can be given back at once.
        lane = max(self._kept(worker_id), key=lambda lane: (lane.accepted, lane.number))
        lane.state = LaneState.REVOKING
        self._run.mail.send(worker_id, letters.revocation(lane, "another worker has fewer lanes"))

    def _is_coming(self, lane: Lane) -> bool:
        """Whether a lane is about to be given back."""
        session = self._run.sessions.get(lane.holder) if lane.holder else None
        return lane.state is LaneState.REVOKING or (session is not None and session.draining)
