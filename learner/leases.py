"""Leasing: which worker gets which lane, and what becomes of the lanes of one that goes."""

import math
import statistics
from typing import Final

from learner import letters
from learner.assignment import Candidate, assign, surplus
from learner.held_states import is_of_use, is_to_be_discarded, was_rolled_back
from learner.lanes import Lane, LaneState
from learner.run import Run
from learner.sessions import SessionState, WorkerSession

_PACES_S: Final = 20.0


class Leases:
    """Moves lanes between workers."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._gathering_until_s: float | None = None
        self._gathered = False
        self._paces: dict[str, float] = {}
        self._paces_at_s = -math.inf

    def credits(self, worker_id: str) -> int:
        """Return how many further pushes the worker may have outstanding.

        Only pushes of lanes that it leases now count against it. One of a lane that has moved on must not
        keep it from pushing the others: in `sync` the update that would settle the one waits for these.
        """
        held = {lane.number for lane in self._run.lanes.held_by(worker_id)}
        return max(
            0, self._run.settings.aggregation.credits_per_lane * len(held) - self._run.buffer.count(held)
        )

    def resume(self, session: WorkerSession) -> None:
        """Let a worker that joined again keep the lanes whose leases it still has; free the others.

        What it holds may also show that theta went back, and that lanes are to begin anew for it.
        """
        held = {(lane.lane, lane.incarnation) for lane in session.introduction.held}
        for lane in self._run.lanes.held_by(session.worker_id):
            if (lane.number, lane.incarnation) in held:
                # Whether it ever read of a revocation is not known; if it is still due, it is said again.
                lane.state = LaneState.GRANTED
            else:
                self._run.lanes.release(lane)
        self._begin_anew_after_rollback(session)

    def _begin_anew_after_rollback(self, session: WorkerSession) -> None:
        if (
            self._run.settings.aggregation.lanes_after_rollback != "reset"
            or self._run.aggregation.exact_versions
        ):
            return
        ahead = [
            lane
            for lane in self._run.lanes
            if lane.number in session.held
            and lane.leases == 0  # else somebody goes on from the checkpoint already
            and was_rolled_back(self._run, lane, session.held[lane.number])
        ]
        for lane in ahead:
            lane.begin_anew()
        if ahead:
            numbers = [lane.number for lane in ahead]
            text = f"lanes {numbers} begin anew: {session.name} has them ahead of theta's checkpoint"
            self._run.events.add("info", "lanes_reset", text)

    def reset(self, lane: Lane, reason: str) -> None:
        """Let a lane begin its unrolls anew: no state of it is used again. `rebalance` leases it."""
        holder = self._run.sessions.get(lane.holder) if lane.holder else None
        if holder is not None:
            self._run.send(holder, letters.revocation(lane, reason))
        self._run.lanes.release(lane)
        lane.begin_anew()

    def relieve(self, session: WorkerSession) -> None:
        """Ask a worker whose estimates come too late for a lane, if somebody else can have it."""
        others = [other for other in self._able(self._run.clock()) if other is not session]
        if any(not other.is_late for other in others) and self._kept(session.worker_id):
            self._revoke_one(session.worker_id, "its estimates come too late")

    def release_all(self, session: WorkerSession) -> list[int]:
        """End every lease of a worker; returns the lanes."""
        lost = self._run.lanes.held_by(session.worker_id)
        for lane in lost:
            self._run.lanes.release(lane)
        return [lane.number for lane in lost]

    def rebalance(self, now_s: float) -> None:
        """Lease free lanes, and ask for some back where loads are uneven."""
        candidates = self._candidates(now_s)
        if not candidates or not self._has_gathered(now_s):
            return
        free = [lane.number for lane in self._run.lanes.free()]
        for number, worker_id in assign(free, candidates):
            self._grant(self._run.lanes[number], worker_id)
        on_the_way = sum(self._is_coming(lane) for lane in self._run.lanes)
        for worker_id in surplus(self._candidates(now_s), on_the_way):
            self._revoke_one(worker_id, "another worker will be done with it sooner")

    def _able(self, now_s: float) -> list[WorkerSession]:
        heartbeat_s = self._run.settings.liveness.heartbeat_s
        return [
            session
            for session in self._run.sessions
            if session.state(now_s, heartbeat_s) is SessionState.ACTIVE and not session.is_empty_relay
        ]

    def _candidates(self, now_s: float) -> list[Candidate]:
        able = self._able(now_s)
        paces = self._known_paces(now_s)
        usual = statistics.median(paces.values()) if paces else 1.0
        return [
            Candidate(
                session.worker_id,
                lanes=len(self._kept(session.worker_id)),
                held=self._of_use(session),
                pace=paces.get(session.worker_id, usual) * max(1, session.heartbeat.workers),
                is_late=session.is_late,
            )
            for session in able
        ]

    def _known_paces(self, now_s: float) -> dict[str, float]:
        """Return the paces as they lately were; they are not worth a look at every push."""
        if now_s - self._paces_at_s >= _PACES_S:
            self._paces_at_s = now_s
            self._run.paces.forget_others({session.worker_id for session in self._run.sessions})
            self._paces = self._run.paces.known()
        return self._paces

    def _of_use(self, session: WorkerSession) -> set[int]:
        return {
            lane.number
            for lane in self._run.lanes.free()
            if lane.number in session.held and is_of_use(self._run, lane, session.held[lane.number])
        }

    def _kept(self, worker_id: str) -> list[Lane]:
        return [lane for lane in self._run.lanes.held_by(worker_id) if lane.state is LaneState.GRANTED]

    def _has_gathered(self, now_s: float) -> bool:
        """Whether the first lanes may go out: all wanted workers are here, or the others took too long.

        Without this, the first to come would get every lane and be asked for some back while it still
        compiles; and after a restart of the learner it would get those whose states the others hold.
        """
        if self._gathered:
            return True
        if self._gathering_until_s is None:
            self._gathering_until_s = now_s + self._run.settings.gather_s
        workers = sum(max(1, session.heartbeat.workers) for session in self._able(now_s))
        self._gathered = workers >= self._run.workers_desired or now_s >= self._gathering_until_s
        return self._gathered

    def _grant(self, lane: Lane, worker_id: str) -> None:
        self._run.lanes.grant(lane, worker_id)
        credits_left = self.credits(worker_id)
        exact, version = self._run.aggregation.exact_versions, self._run.version
        message = letters.grant(lane, version, exact=exact, credits_left=credits_left)
        session = self._run.sessions.get(worker_id)
        held = session.held.get(lane.number) if session is not None else None
        message.grant.discard_held = is_to_be_discarded(self._run, lane, held)
        self._run.mail.send(worker_id, message)

    def _revoke_one(self, worker_id: str, reason: str) -> None:
        # One whose estimate for the running outer step has come can be given back at once.
        lane = max(self._kept(worker_id), key=lambda lane: (lane.accepted, lane.number))
        lane.state = LaneState.REVOKING
        self._run.mail.send(worker_id, letters.revocation(lane, reason))

    def _is_coming(self, lane: Lane) -> bool:
        """Whether a lane is about to be given back."""
        session = self._run.sessions.get(lane.holder) if lane.holder else None
        return lane.state is LaneState.REVOKING or (session is not None and session.draining)
