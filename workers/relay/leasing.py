"""Assignment of a relay's lanes to its workers, and their return to the learner."""

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

    # Events from the learner.

    def await_again(self, names: set[str]) -> None:
        """Hold new lanes while the named workers are expected to rejoin: they may still have the states."""
        self._awaited |= names
        self._awaited_until_s = self._state.clock() + _GATHER_HEARTBEATS * self._state.reply.heartbeat_s

    def receive_grant(self, grant: learner_pb2.LaneGrant) -> None:
        """Add a granted lane and assign it to a worker."""
        self._state.lanes.put(RelayedLane(grant, self._state.clock()))
        self.route()

    def receive_revocation(self, revocation: learner_pb2.LaneRevocation) -> None:
        """Revoke a lane from the worker that holds it."""
        lane = self._state.lanes.under(revocation.lane, revocation.fencing_token)
        if lane is not None:
            self._revoke(lane, revocation.reason)

    def keep_only(self, held: frozenset[tuple[int, int]]) -> None:
        """Drop the lanes whose leases have not survived a new Join."""
        for lane in self._state.lanes:
            if (lane.grant.lane, lane.grant.fencing_token) not in held:
                self._state.lanes.drop(lane)
                self._tell(lane, lane.revocation("the learner has leased it again"))

    # Events from workers.

    def keep_of(self, worker: RelayedWorker) -> None:
        """Return the lanes that a rejoined worker does not hold; it may never have received the grants."""
        held = {(lane.lane, lane.fencing_token) for lane in worker.join_request.held}
        for lane in self._state.lanes.of(worker.session_id):
            if (lane.grant.lane, lane.grant.fencing_token) not in held:
                self.give_back(lane, f"{worker.name} does not have it any more")

    def is_here(self, worker: RelayedWorker) -> None:
        """Start giving lanes to a worker whose stream has opened."""
        self._awaited.discard(worker.name)
        for lane in self._state.lanes.of(worker.session_id):
            if lane.is_revoking:
                worker.send(lane.revocation("the learner still requests its return"))
        self.route()

    def give_back(self, lane: RelayedLane, reason: str, seq: int | None = None) -> None:
        """Return a lane to the learner, after all pushes of the lane."""
        lanes, session_state = self._state.lanes, self._state.session_state
        lanes.drop(lane)
        self._state.pushes.flush(force=True)
        held = lane.held()
        session_state.return_lane(
            learner_pb2.LaneReturn(
                lane=held.lane,
                fencing_token=held.fencing_token,
                seq=held.seq if seq is None else seq,
                reason=reason,
            )
        )

    def give_back_all_of(self, worker: RelayedWorker, reason: str) -> None:
        """Return every lane of a worker that is gone or stuck."""
        for lane in self._state.lanes.of(worker.session_id):
            self.give_back(lane, reason)

    # Time-driven actions.

    def route(self) -> None:
        """Assign the waiting lanes, unless a worker that may hold one's state is still expected to rejoin."""
        if self._awaited and self._state.clock() < self._awaited_until_s:
            return
        self._awaited.clear()
        able = self._state.able()
        for lane in self._state.lanes.of(None):
            if not able:
                return
            worker = self._state.lanes.best(lane, able)
            lane.session_id = worker.session_id
            grant = learner_pb2.LaneGrant()
            grant.CopyFrom(lane.grant)
            grant.credits = self._state.share(worker)
            worker.send(learner_pb2.LearnerMessage(grant=grant))

    def give_back_unwanted(self, reason: str, age_s: float | None = None) -> None:
        """Return the lanes that have waited for a worker for `age_s` (default: two heartbeats)."""
        if age_s is None:
            age_s = _GATHER_HEARTBEATS * self._state.reply.heartbeat_s
        for lane in self._state.lanes.of(None):
            if self._state.clock() - lane.since_s >= age_s:
                self.give_back(lane, reason)

    def even_out(self) -> None:
        """Revoke a lane where loads are uneven; the learner's next grant goes to the least loaded worker."""
        lane = self._state.lanes.surplus(self._state.able())
        if lane is not None:
            self._revoke(lane, "another worker behind the relay has fewer lanes")

    def _revoke(self, lane: RelayedLane, reason: str) -> None:
        lane.is_revoking = True
        if lane.session_id is None:
            self.give_back(lane, reason)
        else:
            self._tell(lane, lane.revocation(reason))

    def _tell(self, lane: RelayedLane, message: learner_pb2.LearnerMessage) -> None:
        worker = self._state.workers.get(lane.session_id) if lane.session_id is not None else None
        if worker is not None:
            worker.send(message)
