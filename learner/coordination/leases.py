"""Leases: which worker gets which lane, and what happens to them when a session is closed."""

import math
import statistics
from typing import Final

from learner.coordination.assignment import Candidate, assign, surplus
from learner.state import messages
from learner.state.lanes import Lane, LaneState, term_of
from learner.state.run import Run
from learner.state.run_state import RunState
from learner.state.sessions import SessionStatus, WorkerSession
from protos.unspool.v1.learner_pb2 import Goodbye, HeldLane

_SPEEDS_S: Final = 20.0
_ENDINGS: Final = {RunState.FINISHED: Goodbye.FINISHED, RunState.STOPPED: Goodbye.STOPPED}


class Leases:
    """Moves lanes between workers."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._gathering_until_s: float | None = None
        self._gathered = False
        self._speeds: dict[str, float] = {}
        self._speeds_at_s = -math.inf

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

        What it holds may also show that theta went back, and that lanes must be reset for it.
        """
        held = {(lane.lane, lane.incarnation) for lane in session.introduction.held}
        for lane in self._run.lanes.held_by(session.worker_id):
            if (lane.number, lane.fencing_token) in held:
                # Whether it ever read of a revocation is not known; if it is still due, it is said again.
                lane.state = LaneState.GRANTED
            else:
                self._run.lanes.release(lane)
        self._reset_after_rollback(session)

    def _reset_after_rollback(self, session: WorkerSession) -> None:
        if (
            self._run.settings.aggregation.lanes_after_rollback != "reset"
            or self._run.aggregation.exact_versions
        ):
            return
        ahead = [
            lane
            for lane in self._run.lanes
            if lane.number in session.held
            and lane.leases == 0  # otherwise a worker already continues from the checkpoint
            and self._was_rolled_back(lane, session.held[lane.number])
        ]
        for lane in ahead:
            lane.reset()
        if ahead:
            numbers = [lane.number for lane in ahead]
            text = f"lanes {numbers} are reset: {session.name} has them ahead of theta's checkpoint"
            self._run.report("info", "lanes_reset", text)

    def reset(self, lane: Lane, reason: str) -> None:
        """Restart a lane's unrolls: no state of it is used again. `rebalance` leases it."""
        holder = self._run.sessions.get(lane.holder) if lane.holder else None
        if holder is not None:
            holder.send(messages.revocation(lane, reason))
        self._run.lanes.release(lane)
        lane.reset()

    def relieve(self, session: WorkerSession) -> None:
        """Ask a worker whose estimates come too late for a lane, if another worker can have it."""
        others = [other for other in self._able(self._run.clock()) if other is not session]
        if any(not other.is_late for other in others) and self._kept(session.worker_id):
            self._revoke_one(session, "its estimates come too late")

    def release_all(self, session: WorkerSession) -> list[int]:
        """End every lease of a worker; returns the lanes."""
        lost = self._run.lanes.held_by(session.worker_id)
        for lane in lost:
            self._run.lanes.release(lane)
        return [lane.number for lane in lost]

    def close(self, session: WorkerSession, reason: Goodbye.Reason, detail: str) -> None:
        """End a session; its lanes go to others."""
        session.send(messages.goodbye(reason, detail))
        self.release_all(session)
        self._run.sessions.close(session)
        if self._run.control.final is None:
            self.rebalance(self._run.clock())

    def expire(self, session: WorkerSession, reason: Goodbye.Reason, detail: str) -> None:
        """End the session of a worker that no longer answers, or that was replaced."""
        lost = [lane.number for lane in self._run.lanes.held_by(session.worker_id)]
        self.close(session, reason, detail)
        self._run.report("warning", "worker_expired", f"{session.name}: {detail}; lanes {lost} are free")

    def say_how_it_ended(self, session: WorkerSession) -> None:
        """Tell a worker how the run has ended. Its session ends with its stream."""
        reason = _ENDINGS.get(self._run.control.final or RunState.FAILED, Goodbye.FAILED)
        session.send(messages.goodbye(reason, f"at outer step {self._run.outer_step}"))

    def rebalance(self, now_s: float) -> None:
        """Lease free lanes, and ask for some back where loads are uneven."""
        candidates = self._candidates(now_s)
        if not candidates or not self._has_gathered(now_s):
            return
        free = [lane.number for lane in self._run.lanes.free()]
        sessions = {session.worker_id: session for session in self._run.sessions}
        for number, worker_id in assign(free, candidates):
            self._grant(self._run.lanes[number], sessions[worker_id])
        on_the_way = sum(self._is_coming(lane) for lane in self._run.lanes)
        for worker_id in surplus(self._candidates(now_s), on_the_way):
            self._revoke_one(sessions[worker_id], "another worker will be done with it sooner")

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
                session.worker_id,
                lanes=len(self._kept(session.worker_id)),
                held=self._held_by(session),
                speed=speeds.get(session.worker_id, usual) * max(1, session.heartbeat.workers),
                is_late=session.is_late,
            )
            for session in able
        ]

    def _known_speeds(self, now_s: float) -> dict[str, float]:
        """Return the speeds, computed again only every few seconds: this is called at every push."""
        if now_s - self._speeds_at_s >= _SPEEDS_S:
            self._speeds_at_s = now_s
            self._run.throughput.forget_others({session.worker_id for session in self._run.sessions})
            self._speeds = self._run.throughput.known()
        return self._speeds

    def _held_by(self, session: WorkerSession) -> set[int]:
        return {
            lane.number
            for lane in self._run.lanes.free()
            if lane.number in session.held and self._can_continue_from(lane, session.held[lane.number])
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
        self._gathered = workers >= self._run.scale.workers or now_s >= self._gathering_until_s
        return self._gathered

    def _grant(self, lane: Lane, session: WorkerSession) -> None:
        self._run.lanes.grant(lane, session.worker_id)
        exact, credits_left = self._run.aggregation.exact_versions, self.credits(session.worker_id)
        message = messages.grant(lane, self._run.outer_step, exact=exact, credits_left=credits_left)
        message.grant.discard_held = self._must_discard(lane, session.held.get(lane.number))
        session.send(message)

    def _revoke_one(self, session: WorkerSession, reason: str) -> None:
        # One whose estimate for the current outer step has arrived can be given back at once.
        lane = max(self._kept(session.worker_id), key=lambda lane: (lane.accepted, lane.number))
        lane.state = LaneState.REVOKING
        session.send(messages.revocation(lane, reason))

    def _can_continue_from(self, lane: Lane, held: HeldLane) -> bool:
        """Return whether a lease may continue from the state of a lane that a worker holds in memory.

        In `sync` that is the state at exactly the seq that the learner has. Otherwise a later one is as good:
        it has seen more than any snapshot.
        """
        if self._run.aggregation.exact_versions:
            return bool(held.seq == lane.reached)
        return held.seq >= lane.reached and not self._must_discard(lane, held)

    def _must_discard(self, lane: Lane, held: HeldLane | None) -> bool:
        """Return whether a worker must not continue from the state that it holds, however recent it is.

        That is so if the lane was reset since, and, unless such states are kept, if theta went back: then the
        state depends on thetas that were rolled back. What is not known to be `held` may still be there.
        """
        if self._run.aggregation.exact_versions:
            return False
        if lane.was_reset:
            return True
        keeps = self._run.settings.aggregation.lanes_after_rollback == "keep"
        return held is not None and not keeps and self._was_rolled_back(lane, held)

    def _was_rolled_back(self, lane: Lane, held: HeldLane) -> bool:
        """Return whether an earlier learner process reached a state and this one has not."""
        return term_of(held.incarnation) < self._run.term and held.seq > lane.reached

    def _is_coming(self, lane: Lane) -> bool:
        """Whether a lane is about to be given back."""
        session = self._run.sessions.get(lane.holder) if lane.holder else None
        return lane.state is LaneState.REVOKING or (session is not None and session.draining)
