"""The relay's coordination without its transport: one method per event from the learner or from a worker.

To the learner, a relay is one worker that holds the lanes of all its workers. Leases, seqs and verdicts pass
through unchanged, so the learner's lease fencing and watermarks work the same with and without a relay.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from protos import codec
from protos.exit_codes import RefusedError
from protos.rpc.denials import DenialReason
from protos.rpc.send_queue import SendQueue
from protos.rpc.session_host import (
    CallFailedError,
    IncomingSnapshot,
    JoinDeniedError,
    SessionHost,
    check_join,
)
from protos.unspool.v1 import learner_pb2
from protos.unspool.v1.common_pb2 import Chunk
from workers.relay.leasing import RelayLeasing
from workers.relay.pending_pushes import PendingPushes
from workers.relay.sessions import RelayedWorker, total_heartbeat
from workers.relay.snapshots import MAX_SNAPSHOT_BYTES, SnapshotInMemory
from workers.relay.state import RelayState
from workers.relay.thetas import RelayThetas
from workers.session.client import LearnerClient, UnavailableError
from workers.session.session_state import Joined, SessionState


class RelayCore(SessionHost):
    """Handles every event of a relay. Thread-safe."""

    def __init__(
        self,
        session_state: SessionState,
        client: LearnerClient,
        max_workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect at most `max_workers` workers to the learner.

        Messages pass through `session_state`; thetas and snapshots are fetched with `client`.
        """
        # Lock order: this lock first, then the lock of session_state; never the reverse.
        self._lock = threading.RLock()
        self._client = client
        self._thetas = RelayThetas(self._fetch_theta)
        self._max_workers = max_workers
        self._state = RelayState(session_state, clock)
        self._leasing = RelayLeasing(self._state)
        self._pending = PendingPushes(self._state)
        self._report = total_heartbeat(self._state.workers, [], 0)

    @property
    def reply(self) -> learner_pb2.JoinReply:
        """The learner's reply to the last Join; empty before the first."""
        return self._state.reply

    @property
    def is_empty(self) -> bool:
        """Whether the relay has no workers."""
        return len(self._state.workers) == 0

    def report(self) -> learner_pb2.Heartbeat:
        """Return the heartbeat for the learner. Takes no lock: session_state calls it under its own."""
        return self._report

    # Events from the learner.

    def joined(self, joined: Joined) -> None:
        """Handle the learner's admission of this relay, for the first time or again.

        If the learner has no earlier session of this relay, all leases are void: the workers join again, as
        they would without a relay, and list the lane states that they still hold.
        """
        with self._lock:
            if joined.fresh:
                names = {worker.name for worker in self._state.workers}
                self.close_all(learner_pb2.Goodbye.EXPIRED, "the relay has joined the learner again")
                self._state.reset(joined.reply)
                self._leasing.await_again(names)
            else:
                self._state.reply = joined.reply
                self._leasing.keep_only(joined.held)
            self._renew_report()

    def receive(self, message: learner_pb2.LearnerMessage) -> None:
        """Forward a message of the learner to the workers that it concerns."""
        with self._lock:
            match message.WhichOneof("body"):
                case "heartbeat_ack":
                    self._state.credits = message.heartbeat_ack.credits
                case "verdict":
                    self._pending.receive(message.verdict)
                case "theta":
                    self._state.theta = message
                    self._state.send_to_all(message)
                case "grant":
                    self._state.credits = message.grant.credits
                    self._leasing.receive_grant(message.grant)
                    self._renew_report()
                case "revocation":
                    self._leasing.receive_revocation(message.revocation)
                case "stack_request":
                    self._ask_for_stack(message)
            self._state.pushes.flush()

    def drain(self, command: learner_pb2.Drain) -> None:
        """Ask every worker to return its lanes and leave; admit no more workers."""
        with self._lock:
            self._state.draining = self._state.draining or command
            for worker in self._state.workers:
                worker.draining = True
            self._state.send_to_all(learner_pb2.LearnerMessage(drain=command))
            self._leasing.give_back_unwanted(command.reason, age_s=0.0)

    def give_back(self, reason: str) -> None:
        """Return to the learner every lane that a worker has not returned itself."""
        with self._lock:
            for lane in self._state.lanes:
                self._leasing.give_back(lane, reason)

    def close_all(self, reason: learner_pb2.Goodbye.Reason, detail: str) -> None:
        """Send a Goodbye to every worker."""
        with self._lock:
            goodbye = learner_pb2.Goodbye(reason=reason, detail=detail)
            self._state.send_to_all(learner_pb2.LearnerMessage(goodbye=goodbye))

    def tick(self) -> None:
        """Expire silent workers, take lanes from stuck ones, balance loads. Call it a few times a second."""
        with self._lock:
            if not self._state.has_joined:
                return
            for worker in self._state.workers:
                silent_s = self._state.clock() - worker.last_message_s
                if silent_s > self._state.lease_ttl_s:
                    self._close(worker, learner_pb2.Goodbye.EXPIRED, f"no message for {silent_s:.1f} s")
                elif worker.stuck_at is None and worker.is_overdue():
                    self._unburden(worker)
            self._leasing.route()
            self._leasing.give_back_unwanted("no worker behind the relay can take it")
            self._leasing.even_out()
            self._renew_report()

    # Calls of workers.

    def join(self, request: learner_pb2.JoinRequest) -> learner_pb2.JoinReply:
        """Admit a worker. One whose stream broke rejoins and keeps the leases that it still holds.

        Raises:
            JoinDeniedError: the worker does not match this run, or there is temporarily no learner or room.
        """
        with self._lock:
            self._check(request)
            worker = self._state.workers.named(request.worker_name)
            if worker is not None and worker.join_request.process_uuid != request.process_uuid:
                self._close(worker, learner_pb2.Goodbye.SUPERSEDED, "a newer process of this worker joined")
                worker = None
            if worker is None:
                worker = self._state.workers.open(request, self._state.clock())
            else:
                worker.rejoin(request, self._state.clock())
            worker.note_held(request.held)
            self._leasing.keep_of(worker)
            welcome = learner_pb2.JoinReply()
            welcome.CopyFrom(self._state.reply)
            welcome.session_id, welcome.session_secret = worker.session_id, worker.secret
            welcome.outer_step = self._state.outer_step
            return welcome

    def attach(self, secret: str, peer: str = "") -> tuple[str, SendQueue] | None:
        with self._lock:
            worker = self._state.workers.with_secret(secret)
            if worker is None:
                return None
            queue = worker.open_stream(self._state.clock())
            if self._state.theta is not None:
                worker.send(self._state.theta)
            self._leasing.is_here(worker)
            self._renew_report()
            return worker.session_id, queue

    def detach(self, session_id: str, queue: SendQueue) -> None:
        """Handle a broken stream. The worker keeps its lanes until the lease's time to live expires."""
        with self._lock:
            queue.close()
            worker = self._state.workers.get(session_id)
            if worker is not None and worker.stream is queue:
                worker.stream = None
                self._renew_report()

    def theta(self, outer_step: int) -> Iterator[Chunk]:
        yield from self._sent(lambda: self._thetas.get(self.reply.term, outer_step), outer_step)

    def snapshot(self, lane: int, seq: int) -> Iterator[Chunk]:
        yield from self._sent(lambda: self._client.get_snapshot(lane, seq, MAX_SNAPSHOT_BYTES), seq)

    def leave(self, request: learner_pb2.LeaveRequest) -> None:
        """Close the session of a worker that leaves, for example because it does not match this run."""
        with self._lock:
            worker = self._state.workers.get(request.session_id)
            if worker is not None:
                level = "error" if request.unfit else "info"
                self._state.session_state.log(
                    level, f"{worker.name} disconnected from its relay: {request.reason}"
                )
                self._close(worker, learner_pb2.Goodbye.DRAINED, request.reason)

    # Messages of workers.

    def body_bytes(self) -> int:
        return codec.body_bytes(self.reply.schema)

    def wants_body(self, session_id: str, push: learner_pb2.GradientEstimatorOut) -> bool:
        with self._lock:
            worker = self._state.sender(session_id)
            return worker is not None and not self._pending.refuse(worker, push)

    def push(
        self, session_id: str, push: learner_pb2.GradientEstimatorOut, body: codec.Buffer | codec.CodecError
    ) -> None:
        """Accept a push as pending, or answer it with a rejection."""
        with self._lock:
            worker = self._state.sender(session_id)
            if worker is not None and not self._pending.refuse(worker, push):
                self._pending.take(worker, push, body)

    def receive_snapshot(self, session_id: str, snapshot: learner_pb2.Snapshot) -> IncomingSnapshot | None:
        """Receive a snapshot only if its lease is current, which is the learner's rule too."""
        if 0 < snapshot.bytes <= MAX_SNAPSHOT_BYTES and self._is_leased(session_id, snapshot):
            return SnapshotInMemory(snapshot, lambda body: self._forward_snapshot(session_id, snapshot, body))
        return None

    def message(self, session_id: str, kind: str, message: Any) -> None:
        with self._lock:
            worker = self._state.sender(session_id)
            if worker is None:
                return
            match kind:
                case "heartbeat":
                    self._acknowledge(worker, message)
                case "lane_return":
                    self._return_lane(worker, message)
                case "lane_failure":
                    if self._state.lanes.leased(session_id, message.lane, message.fencing_token) is not None:
                        self._state.session_state.report_failure(message)
                case "stack":
                    self._state.session_state.send_stack(f"{worker.name}:\n{message.text}")
                case "log":
                    failure = message.failure if message.HasField("failure") else None
                    self._state.session_state.log(message.level, f"{worker.name}: {message.text}", failure)

    def _acknowledge(self, worker: RelayedWorker, heartbeat: learner_pb2.Heartbeat) -> None:
        worker.take_heartbeat(heartbeat)
        worker.note_held(heartbeat.lanes)
        ack = learner_pb2.HeartbeatAck(outer_step=self._state.outer_step, credits=self._state.share(worker))
        worker.send(learner_pb2.LearnerMessage(heartbeat_ack=ack))

    def _return_lane(self, worker: RelayedWorker, message: learner_pb2.LaneReturn) -> None:
        """Return a worker's lane to the learner, after all pushes and messages about the lane."""
        lane = self._state.lanes.leased(worker.session_id, message.lane, message.fencing_token)
        if lane is not None:
            self._leasing.give_back(lane, message.reason, message.seq)
            self._renew_report()

    def _is_leased(self, session_id: str, snapshot: learner_pb2.Snapshot) -> bool:
        with self._lock:
            self._state.sender(session_id)
            return self._state.lanes.leased(session_id, snapshot.lane, snapshot.fencing_token) is not None

    def _forward_snapshot(self, session_id: str, snapshot: learner_pb2.Snapshot, body: bytes) -> None:
        with self._lock:
            if self._is_leased(session_id, snapshot):
                self._state.session_state.snapshot(snapshot, body)

    def _fetch_theta(self, outer_step: int) -> codec.Buffer:
        return self._client.get_theta(outer_step, self.body_bytes())

    def _sent(self, fetch: Callable[[], codec.Buffer], transfer: int) -> Iterator[Chunk]:
        try:
            body = fetch()
        except RefusedError as error:
            raise CallFailedError(grpc.StatusCode.NOT_FOUND, str(error)) from error
        except UnavailableError as error:
            raise CallFailedError(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        yield from codec.chunks(body, transfer, self.reply.chunk_bytes)

    def _check(self, request: learner_pb2.JoinRequest) -> None:
        state = self._state
        if not state.has_joined or state.draining is not None:
            why = "is draining" if state.draining is not None else "has not reached its learner yet"
            raise self._for_now(f"this relay {why}; try again later")
        check_join(request, state.reply.run_id, "relay")
        if state.workers.named(request.worker_name) is None and len(state.workers) >= self._max_workers:
            raise self._for_now(
                f"all {self._max_workers} places of this relay are taken (--max-workers); try again later"
            )

    @staticmethod
    def _for_now(text: str) -> JoinDeniedError:
        return JoinDeniedError(DenialReason.NO_ROOM, text, grpc.StatusCode.UNAVAILABLE)

    def _close(self, worker: RelayedWorker, reason: learner_pb2.Goodbye.Reason, detail: str) -> None:
        goodbye = learner_pb2.Goodbye(reason=reason, detail=detail)
        worker.send(learner_pb2.LearnerMessage(goodbye=goodbye))
        self._state.workers.close(worker)
        # Send the heartbeat first, because it overtakes every queued message: the learner must not grant the
        # lanes again to a relay that has become empty.
        self._renew_report()
        self._state.session_state.send_heartbeat(self._report)
        self._leasing.give_back_all_of(worker, f"{worker.name}: {detail}")

    def _unburden(self, worker: RelayedWorker) -> None:
        worker.stuck_at = worker.heartbeat.progress
        text = f"{worker.name} has not progressed behind its relay for {worker.heartbeat.phase_age_s:.0f} s"
        self._state.session_state.log("warning", text)
        self._leasing.give_back_all_of(worker, text)
        worker.send(learner_pb2.LearnerMessage(stack_request=learner_pb2.StackRequest()))

    def _ask_for_stack(self, message: learner_pb2.LearnerMessage) -> None:
        """Forward a stack request to the worker that has been in its phase for longest."""
        here = [worker for worker in self._state.workers if worker.stream is not None]
        if here:
            max(here, key=lambda worker: worker.heartbeat.phase_age_s).send(message)

    def _renew_report(self) -> None:
        lanes = [lane.held() for lane in self._state.lanes]
        self._report = total_heartbeat(self._state.workers, lanes, self._state.progress)
