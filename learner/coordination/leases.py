"""Leases: granting and revoking lanes, and freeing them when a session is closed."""

import math
import statistics
from typing import Final

from learner.coordination.assignment import Candidate, assign, surplus
from learner.state import messages
from learner.state.lanes import Lane, LaneState, term_of
from learner.state.run import Run
from learner.state.run_state import RunState
from learner.state.sessions import SessionStatus, WorkerSession
from protos.unspool.v1.learner_pb2 import Goodbye, HeldLane, LearnerMessage

_SPEEDS_S: Final = 20.0  # the lifetime of cached worker speeds
_ENDINGS: Final = {RunState.FINISHED: Goodbye.FINISHED, RunState.STOPPED: Goodbye.STOPPED}


class Leases:
    """Moves lanes between workers."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._gathering_until_s: float | None = None
        self._gathered = False
        self._speeds: dict[str, float] = {}
        self._speeds_at_s = -math.inf

    def credits(self, session_id: str) -> int:
        """Return how many more pushes the worker may have outstanding.

        Only pushes of lanes that it leases now count. A buffered push of a lane that has moved to another
        worker must not block pushes of this worker's lanes: in `sync`, the update that settles the former
        waits for the latter, which would be a deadlock.
        """
        held = {lane.number for lane in self._run.lanes.held_by(session_id)}
        allowed = self._run.settings.aggregation.credits_per_lane * len(held)
        return max(0, allowed - self._run.buffer.count(held))

    def resume(self, session: WorkerSession) -> None:
        """Keep the leases that a rejoining worker still has; free its other lanes.

        The worker's lane states may also show that theta was rolled back; the settings may then reset lanes.
        """
        held = {(lane.lane, lane.fencing_token) for lane in session.join_request.held}
        for lane in self._run.lanes.held_by(session.session_id):
            if (lane.number, lane.fencing_token) in held:
                # The worker may have missed a revocation; if it is still due, `rebalance` sends it again.
                lane.state = LaneState.GRANTED
            else:
                self._run.lanes.release(lane)
        self._reset_after_rollback(session)

    def _reset_after_rollback(self, session: WorkerSession) -> None:
        resets = self._run.settings.aggregation.lanes_after_rollback == "reset"
        if not resets or self._run.aggregation.exact_steps:
            return
        ahead = [
            lane
            for lane in self._run.lanes
            if lane.number in session.held
            and lane.leases == 0  # otherwise, a worker has already continued from the checkpoint
            and self._was_rolled_back(lane, session.held[lane.number])
        ]
        for lane in ahead:
            lane.reset()
        if ahead:
            numbers = [lane.number for lane in ahead]
            text = f"lanes {numbers} are reset: {session.name} has them ahead of theta's checkpoint"
            self._run.report("info", "lanes_reset", text)

    def reset(self, lane: Lane, reason: str) -> None:
        """Restart a lane's unrolls; discard all its states. `rebalance` leases it again."""
        holder = self._run.holder(lane)
        if holder is not None:
            holder.send(messages.revocation(lane, reason))
        self._run.lanes.release(lane)
        lane.reset()

    def relieve(self, session: WorkerSession) -> None:
        """Revoke a lane of a worker whose estimates are late, if a worker that is not late can take it."""
        others = [other for other in self._able(self._run.clock()) if other is not session]
        if any(not other.is_late for other in others) and self._kept(session.session_id):
            self._revoke_one(session, "its estimates come too late")

    def release_all(self, session: WorkerSession) -> list[int]:
        """End every lease of a worker; return the lanes' numbers."""
        lost = self._run.lanes.held_by(session.session_id)
        for lane in lost:
            self._run.lanes.release(lane)
        return [lane.number for lane in lost]

    def close(self, session: WorkerSession, reason: Goodbye.Reason, detail: str) -> None:
        """End a session and reassign its lanes."""
        session.send(LearnerMessage(goodbye=Goodbye(reason=reason, detail=detail)))
        self.release_all(session)
        self._run.sessions.close(session)
        if self._run.control.final is None:
            self.rebalance(self._run.clock())

    def expire(self, session: WorkerSession, reason: Goodbye.Reason, detail: str) -> None:
        """End the session of a worker that is silent or was replaced."""
        lost = [lane.number for lane in self._run.lanes.held_by(session.session_id)]
        self.close(session, reason, detail)
        self._run.report("warning", "worker_expired", f"{session.name}: {detail}; lanes {lost} are free")

    def send_outcome(self, session: WorkerSession) -> None:
        """Send a worker the outcome of the run. Its session ends with its stream."""
        reason = _ENDINGS.get(self._run.control.final or RunState.FAILED, Goodbye.FAILED)
        goodbye = Goodbye(reason=reason, detail=f"at outer step {self._run.outer_step}")
        session.send(LearnerMessage(goodbye=goodbye))

    def rebalance(self, now_s: float) -> None:
        """Lease free lanes, and revoke some if loads are uneven."""
        candidates = self._candidates(now_s)
        if not candidates or not self._has_gathered(now_s):
            return
        free = [lane.number for lane in self._run.lanes.free()]
        sessions = {session.session_id: session for session in self._run.sessions}
        for number, session_id in assign(free, candidates):
            self._grant(self._run.lanes[number], sessions[session_id])
        on_the_way = sum(self._is_coming(lane) for lane in self._run.lanes)
        for session_id in surplus(self._candidates(now_s), on_the_way):
            self._revoke_one(sessions[session_id], "another worker will finish it sooner")

    def _able(self, now_s: float) -> list[WorkerSession]:
        heartbeat_s = self._run.settings.liveness.heartbeat_s
        return [
            session
            for session in self._run.sessions
            if session.state(now_s, heartbeat_s) is SessionStatus.ACTIVE and not session.is_empty_relay
        ]

    def _candidates(self, now_s: float) -> list[Candidate]:
        able = self._able(now_s)
        speeds = self._known_speeds(now_s)
        usual = statistics.median(speeds.values()) if speeds else 1.0
        return [
            Candidate(
                session.session_id,
                lanes=len(self._kept(session.session_id)),
                held=self._held_by(session),
                speed=speeds.get(session.session_id, usual) * max(1, session.heartbeat.workers),
                is_late=session.is_late,
            )
            for session in able
        ]

    def _known_speeds(self, now_s: float) -> dict[str, float]:
        """Return the workers' speeds. They are cached for `_SPEEDS_S`, because every push may call this."""
        if now_s - self._speeds_at_s >= _SPEEDS_S:
            self._speeds_at_s = now_s
            sessions = {session.session_id for session in self._run.sessions}
            self._speeds = self._run.throughput.known(sessions)
        return self._speeds

    def _held_by(self, session: WorkerSession) -> set[int]:
        return {
            lane.number
            for lane in self._run.lanes.free()
            if lane.number in session.held and self._can_continue_from(lane, session.held[lane.number])
        }

    def _kept(self, session_id: str) -> list[Lane]:
        return [lane for lane in self._run.lanes.held_by(session_id) if lane.state is LaneState.GRANTED]

    def _has_gathered(self, now_s: float) -> bool:
        """Return whether lanes may be leased: all desired workers have joined, or `gather_s` has passed.

        Otherwise, the first worker to join would get every lane and would have to return some while it still
        compiles. After a restart of the learner, it would also get lanes whose states other workers hold.
        """
        if self._gathered:
            return True
        if self._gathering_until_s is None:
            self._gathering_until_s = now_s + self._run.settings.gather_s
        workers = sum(max(1, session.heartbeat.workers) for session in self._able(now_s))
        self._gathered = workers >= self._run.scale.workers or now_s >= self._gathering_until_s
        return self._gathered

    def _grant(self, lane: Lane, session: WorkerSession) -> None:
        self._run.lanes.grant(lane, session.session_id)
        exact, credits_left = self._run.aggregation.exact_steps, self.credits(session.session_id)
        message = messages.grant(lane, self._run.outer_step, exact=exact, credits_left=credits_left)
        message.grant.discard_held = self._must_discard(lane, session.held.get(lane.number))
        session.send(message)

    def _revoke_one(self, session: WorkerSession, reason: str) -> None:
        # Prefer a lane whose estimate for the current outer step has arrived: it can be returned at once.
        lane = max(self._kept(session.session_id), key=lambda lane: (lane.accepted, lane.number))
        lane.state = LaneState.REVOKING
        session.send(messages.revocation(lane, reason))

    def _can_continue_from(self, lane: Lane, held: HeldLane) -> bool:
        """Return whether a lease may continue from the lane state in a worker's memory.

        In `sync`, the state must be at exactly the learner's seq. In other modes a later state will do too:
        it is more recent than any snapshot.
        """
        if self._run.aggregation.exact_steps:
            return bool(held.seq == lane.reached)
        return held.seq >= lane.reached and not self._must_discard(lane, held)

    def _must_discard(self, lane: Lane, held: HeldLane | None) -> bool:
        """Return whether a worker must discard its lane state, however recent it is.

        This is the case if the lane was reset; and, unless `lanes_after_rollback` is `keep`, if the state
        depends on thetas that were rolled back. After a reset, this applies even if `held` is None: the
        worker may have a state that it has not reported.
        """
        if self._run.aggregation.exact_steps:
            return False
        if lane.was_reset:
            return True
        keeps = self._run.settings.aggregation.lanes_after_rollback == "keep"
        return held is not None and not keeps and self._was_rolled_back(lane, held)

    def _was_rolled_back(self, lane: Lane, held: HeldLane) -> bool:
        """Return whether a state was reached under an earlier learner process and is ahead of this one."""
        return term_of(held.fencing_token) < self._run.term and held.seq > lane.reached

    def _is_coming(self, lane: Lane) -> bool:
        """Return whether a lane is about to be returned."""
        holder = self._run.holder(lane)
        return lane.state is LaneState.REVOKING or (holder is not None and holder.draining)
