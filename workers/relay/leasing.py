"""Which worker behind a relay has which of its lanes, and how they get back to the learner."""

from protos.unspool.v1 import learner_pb2
from workers.relay.lanes import RelayedLane
from workers.relay.sessions import RelayedWorker
from workers.relay.state import RelayState

_GATHER_HEARTBEATS = 2.0


class RelayLeasing:
    """Moves lanes between the learner and the workers. Not thread-safe: the relay's lock guards it."""

    def __init__(self, state: RelayState) -> None:
        self._state = state
        self._awaited: set[str] = set()
        self._awaited_until_s = 0.0

    # What the learner says.

    def await_again(self, names: set[str]) -> None:
        """Keep lanes that come for workers that will be back: they may still have the states."""
        self._awaited |= names
        self._awaited_until_s = self._state.clock() + _GATHER_HEARTBEATS * self._state.reply.heartbeat_s

    def receive_grant(self, grant: learner_pb2.LaneGrant) -> None:
        """Take a lane, for whoever is to have it."""
        self._state.lanes.put(RelayedLane(grant, self._state.clock()))
        self.route()

    def receive_revocation(self, revocation: learner_pb2.LaneRevocation) -> None:
        """Ask for a lane back from whoever has it."""
        lane = self._state.lanes.under(revocation.lane, revocation.incarnation)
        if lane is not None:
            self._revoke(lane, revocation.reason)

    def keep_only(self, held: frozenset[tuple[int, int]]) -> None:
        """Lose the lanes whose leases have not survived a new Join."""
        for lane in self._state.lanes:
            if (lane.grant.lane, lane.grant.incarnation) not in held:
                self._state.lanes.drop(lane)
                self._tell(lane, lane.revocation("the learner has leased it anew"))

    # What workers do.

    def keep_of(self, worker: RelayedWorker) -> None:
        """Return what a worker that joined again does not hold any more: whether it ever did is not known."""
        held = {(lane.lane, lane.incarnation) for lane in worker.introduction.held}
        for lane in self._state.lanes.of(worker.worker_id):
            if (lane.grant.lane, lane.grant.incarnation) not in held:
                self.give_back(lane, f"{worker.name} does not have it any more")

    def is_here(self, worker: RelayedWorker) -> None:
        """Begin to give lanes to a worker whose stream has come."""
        self._awaited.discard(worker.name)
        for lane in self._state.lanes.of(worker.worker_id):
            if lane.is_revoking:
                worker.send(lane.revocation("it is still wanted back"))
        self.route()

    def give_back(self, lane: RelayedLane, reason: str, seq: int | None = None) -> None:
        """Return a lane to the learner, after everything that there was to say of it."""
        lanes, session_state = self._state.lanes, self._state.session_state
        lanes.drop(lane)
        self._state.pushes.flush(force=True)
        held = lane.held()
        session_state.return_lane(
            learner_pb2.LaneReturn(
                lane=held.lane,
                incarnation=held.incarnation,
                seq=held.seq if seq is None else seq,
                reason=reason,
            )
        )

    def give_back_all_of(self, worker: RelayedWorker, reason: str) -> None:
        """Return every lane of a worker that is gone, or might as well be."""
        for lane in self._state.lanes.of(worker.worker_id):
            self.give_back(lane, reason)

    # What time does.

    def route(self) -> None:
        """Pass on the grants that wait, unless somebody who may have a lane's state is still to come."""
        if self._awaited and self._state.clock() < self._awaited_until_s:
            return
        self._awaited.clear()
        able = self._state.able()
        for lane in self._state.lanes.of(None):
            if not able:
                return
            worker = self._state.lanes.best(lane, able)
            lane.worker_id = worker.worker_id
            grant = learner_pb2.LaneGrant()
            grant.CopyFrom(lane.grant)
            grant.credits = self._state.share(worker)
            worker.send(learner_pb2.LearnerMessage(grant=grant))

    def give_back_unwanted(self, reason: str, age_s: float | None = None) -> None:
        """Return the lanes that have waited for a worker for so long (by default, two heartbeats)."""
        if age_s is None:
            age_s = _GATHER_HEARTBEATS * self._state.reply.heartbeat_s
        for lane in self._state.lanes.of(None):
            if self._state.clock() - lane.since_s >= age_s:
                self.give_back(lane, reason)

    def even_out(self) -> None:
        """Ask a lane back where loads are uneven; the learner's next grant goes to the least loaded."""
        lane = self._state.lanes.surplus(self._state.able())
        if lane is not None:
            self._revoke(lane, "another worker behind the relay has fewer lanes")

    def _revoke(self, lane: RelayedLane, reason: str) -> None:
        lane.is_revoking = True
        if lane.worker_id is None:
            self.give_back(lane, reason)
        else:
            self._tell(lane, lane.revocation(reason))

    def _tell(self, lane: RelayedLane, message: learner_pb2.LearnerMessage) -> None:
        worker = self._state.workers.get(lane.worker_id) if lane.worker_id is not None else None
        if worker is not None:
            worker.send(message)
