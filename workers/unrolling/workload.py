"""A worker's leased lanes and the work on them: take up, estimate, push, snapshot, return."""

import collections
import contextlib
import hashlib
from collections.abc import Callable, Iterator

from protos.exit_codes import RefusedError
from protos.messages import failure_message
from protos.unspool.v1 import learner_pb2
from unspool.failure_report import FailureReport, traceback_of
from workers.session.client import LearnerClient, UnavailableError
from workers.session.session_state import Joined, Rejected, SessionState
from workers.unrolling.lane import LaneUnroll
from workers.unrolling.leases import HeldLeases
from workers.unrolling.progress import Progress
from workers.unrolling.unroller import Unroller

_Phase = learner_pb2.Heartbeat
_TRACEBACK_CHARACTERS = 8000


class LaneConflictError(RuntimeError):
    """The learner and this worker disagree about a lane in a way that only a restart resolves."""


class Workload:
    """The work of one experiment. Used only by the worker's thread."""

    def __init__(
        self,
        joined: Joined,
        client: LearnerClient,
        session_state: SessionState,
        progress: Progress,
        clock: Callable[[], float],
    ) -> None:
        """Build the experiment, without lanes.

        Args:
            joined: the learner's answer to Join.
            client: where thetas and snapshots are fetched from.
            session_state: exchanges messages with the learner.
            progress: receives every phase.
            clock: monotonic seconds.

        Raises:
            RefusedError: the experiment cannot be built here, or its theta differs in shape from
                the learner's.
        """
        progress.enter(_Phase.COMPILING, "building the experiment")
        self._reply = joined.reply
        self._session_state = session_state
        self._progress = progress
        self._clock = clock
        self._unroller = Unroller(joined.reply, client, clock=clock)
        self._leases = HeldLeases()
        self._grants: collections.deque[learner_pb2.LaneGrant] = collections.deque()
        self._outdated_before = 0
        self._report_lanes()

    # Commands.

    def can_rejoin(self, joined: Joined) -> bool:
        """Whether the learner still has the configuration that the experiment was built from."""
        return bool(self._reply.experiment_toml == joined.reply.experiment_toml)

    def rejoin(self, joined: Joined) -> None:
        """Continue in another session, with the leases that have survived."""
        # The Join did not list grants that were not taken up, so the learner will grant those lanes again.
        self._grants.clear()
        self._outdated_before = 0
        self._reply = joined.reply
        self._leases.keep(lambda lane: not joined.fresh and (lane.number, lane.fencing_token) in joined.held)
        self._report_lanes()

    def grant(self, grant: learner_pb2.LaneGrant) -> None:
        """Queue a granted lane, to be taken up later."""
        self._grants.append(grant)

    def revoke(self, revocation: learner_pb2.LaneRevocation) -> None:
        """Return a lane now. Its last estimate has been pushed already."""
        lease = (revocation.lane, revocation.fencing_token)
        for grant in [grant for grant in self._grants if (grant.lane, grant.fencing_token) == lease]:
            self._grants.remove(grant)
            self._return_untouched(grant, revocation.reason)
        lane = self._leases.leased(*lease)
        if lane is not None:
            self._return(lane, revocation.reason)

    def give_back(self, reason: str) -> None:
        """Return every lane."""
        for lane in list(self._leases):
            self._return(lane, reason)
        while self._grants:
            self._return_untouched(self._grants.popleft(), reason)

    def take_rejection(self, rejected: Rejected) -> None:
        """Handle a push that the learner rejected.

        Raises:
            RefusedError: gradients of this process do not match the learner's theta.
            LaneConflictError: in sync mode, the learner expects a different seq under the same lease.
        """
        verdict = rejected.verdict
        name = learner_pb2.Verdict.Name(verdict.verdict)
        text = f"{name} lane {verdict.lane} seq {verdict.seq}: {verdict.detail}"
        match verdict.verdict:
            case learner_pb2.NOT_LEASED:
                lost = self._leases.leased(verdict.lane, rejected.fencing_token)
                self._leases.keep(lambda lane: lane is not lost)
                self._report_lanes()
            case learner_pb2.SCHEMA_MISMATCH | learner_pb2.TOO_LARGE:
                raise RefusedError(text)
            case learner_pb2.FUTURE | learner_pb2.STALE if self._reply.exact_steps:
                raise LaneConflictError(text)
            case learner_pb2.STALE:
                # Wait for a newer theta: the learner announces only the newest, and its announcement may
                # follow.
                self._outdated_before = max(self._outdated_before, verdict.outer_step)
            case learner_pb2.CORRUPT:
                self._session_state.log("warning", text)

    # Work.

    def step(self) -> bool:
        """Do one piece of work: take up a lane, or advance one by one estimate.

        Returns False if there is nothing to do now.

        Raises:
            UnavailableError: the learner does not answer a request; try again later.
            SnapshotError: a snapshot differs from the granted one.
        """
        return self._take_grant() or self._advance_a_lane()

    def waiting_for(self) -> str:
        """Return what the next piece of work waits for."""
        lanes, theta = list(self._leases), self._session_state.theta
        if not lanes:
            return "a lane"
        if theta is None:
            return "theta"
        if not self._session_state.has_room:
            return "the connection: unsent messages accumulate"
        if self._reply.exact_steps:
            return f"outer step {min(lane.seq for lane in lanes)} (newest: {theta.outer_step})"
        if theta.outer_step < self._outdated_before:
            return f"outer step {self._outdated_before} (newest: {theta.outer_step})"
        return "a credit"

    def _take_grant(self) -> bool:
        if not self._grants:
            return False
        grant = self._grants[0]
        self._progress.enter(_Phase.RESTORING, f"lane {grant.lane} at seq {grant.seq}", lane=grant.lane)
        try:
            with self._blaming(grant.lane, grant.fencing_token, grant.seq + 1):
                lane = self._leases.reuse(grant, exact=self._reply.exact_steps) or self._build(grant)
        except RefusedError as refusal:
            self._return_untouched(grant, f"cannot be restored: {refusal}")
        else:
            self._leases.put(lane)
            self._report_lanes()
        self._grants.popleft()
        return True

    def _build(self, grant: learner_pb2.LaneGrant) -> LaneUnroll:
        if grant.snapshot_seq:
            return self._unroller.restore(grant)
        theta, thetas = self._session_state.theta, self._unroller.thetas
        if theta is not None and (theta.outer_step == grant.init_outer_step or not self._reply.exact_steps):
            return self._unroller.initialise(grant, thetas.announced(theta))
        return self._unroller.initialise(grant, thetas.published(grant.init_outer_step))

    def _advance_a_lane(self) -> bool:
        theta = self._session_state.theta
        if theta is not None and theta.outer_step > self._reply.outer_step:
            # Theta has advanced, so the lanes that this worker lost have advanced on other workers: a grant
            # will not ask for the old states.
            self._leases.drop_unleased()
        for lane in self._leases:
            if lane.replay:
                self._replay(lane)
                return True
            if theta is not None and self._is_ready(lane, theta):
                self._estimate(lane, theta)
                return True
        return False

    def _is_ready(self, lane: LaneUnroll, theta: learner_pb2.ThetaAnnouncement) -> bool:
        if not self._session_state.has_room:
            return False
        if self._reply.exact_steps:
            return theta.outer_step == lane.seq  # estimate seq + 1 uses outer step seq
        return theta.outer_step >= self._outdated_before and self._session_state.free_credits > 0

    def _replay(self, lane: LaneUnroll) -> None:
        phase = _Phase.COMPILING if self._unroller.compiles(lane) else _Phase.RESTORING
        waiting_for = f"lane {lane.number}: {len(lane.replay)} estimates to replay"
        self._progress.enter(phase, waiting_for, lane=lane.number)
        try:
            with self._blaming(lane.number, lane.fencing_token, lane.granted_seq + 1):
                replayed = self._unroller.replay(lane)
            self._leases.serve(replayed)
            self._report_lanes()
        except RefusedError as refusal:
            self._return(lane, f"cannot be replayed: {refusal}")

    def _estimate(self, lane: LaneUnroll, theta: learner_pb2.ThetaAnnouncement) -> None:
        weights = self._unroller.thetas.announced(theta)
        compiles = self._unroller.compiles(lane)
        phase = _Phase.COMPILING if compiles else _Phase.COMPUTING
        self._progress.enter(phase, f"lane {lane.number}", lane=lane.number)
        began_s = self._clock()
        with self._blaming(lane.number, lane.fencing_token, lane.seq + 1):
            lane, push, body = self._unroller.estimate(lane, weights, theta.outer_step)
        self._progress.estimated(began_s, push.unroll_info.inner_steps, compiled=compiles)
        self._session_state.push(push, body)
        if lane.seq % self._reply.snapshot_every == 0:
            lane = self._send_snapshot(lane)
        self._leases.serve(lane)
        self._report_lanes()

    @contextlib.contextmanager
    def _blaming(self, lane: int, fencing_token: int, seq: int) -> Iterator[None]:
        """Report an exception with its lane and estimate to the learner, then re-raise it.

        The supervisor cannot report them: it sees only that the process crashed.
        """
        try:
            yield
        except (RefusedError, UnavailableError):
            raise
        except Exception as error:
            failure = learner_pb2.LaneFailure(
                lane=lane,
                fencing_token=fencing_token,
                seq=seq,
                traceback=_end_of(traceback_of(error)),
                report=failure_message(*FailureReport.of(error)),
            )
            self._session_state.report_failure(failure)
            raise

    # Returning lanes.

    def _send_snapshot(self, lane: LaneUnroll) -> LaneUnroll:
        body = lane.to_bytes()
        snapshot = learner_pb2.Snapshot(
            lane=lane.number,
            fencing_token=lane.fencing_token,
            seq=lane.seq,
            bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
        )
        self._session_state.snapshot(snapshot, body)
        return lane.snapshotted()

    def _return(self, lane: LaneUnroll, reason: str) -> None:
        # A lane whose replay is unfinished needs no snapshot: its state is not newer than the granted one.
        if not lane.replay and lane.snapshot_seq != lane.seq:
            self._send_snapshot(lane)
        self._return_at(lane.number, lane.fencing_token, lane.granted_seq, reason)
        self._leases.drop(lane.number)
        self._report_lanes()

    def _return_untouched(self, grant: learner_pb2.LaneGrant, reason: str) -> None:
        self._return_at(grant.lane, grant.fencing_token, grant.seq, reason)

    def _return_at(self, lane: int, fencing_token: int, seq: int, reason: str) -> None:
        self._session_state.return_lane(
            learner_pb2.LaneReturn(lane=lane, fencing_token=fencing_token, seq=seq, reason=reason)
        )

    def _report_lanes(self) -> None:
        self._progress.hold(self._leases.held())


def _end_of(text: str) -> str:
    """Return the last lines that fit in `_TRACEBACK_CHARACTERS`."""
    end = text[-_TRACEBACK_CHARACTERS:]
    return end if len(end) == len(text) else end.partition("\n")[2]
