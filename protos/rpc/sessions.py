"""Worker sessions, for learners and relays.

A session survives a broken stream; it expires after silence for the lease's time to live. All times are on
the host's monotonic clock.
"""

import dataclasses
import hmac
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from protos.rpc.liveness import SUSPECT_HEARTBEATS, has_progressed
from protos.rpc.send_queue import SendQueue
from protos.unspool.v1 import learner_pb2


@dataclasses.dataclass
class Session:
    """The session of one worker process. Learner and relay extend it with their own fields.

    Attributes:
        session_id: the host's id of this session; new for each process and after an expiry.
        join_request: its last Join request.
        secret: the secret returned by the last Join, which authenticates a stream.
        last_message_s: the time of its last message.
        heartbeat: its last heartbeat.
        draining: whether it was asked to return its lanes and leave.
        stuck_at: the progress counter at which it is stuck, or None.
        held: the lane states in its memory, by lane, as it last reported them.
        stream: the send queue of the open stream, or None if no stream is open.
    """

    session_id: str
    join_request: learner_pb2.JoinRequest
    secret: str
    last_message_s: float
    heartbeat: learner_pb2.Heartbeat = dataclasses.field(default_factory=learner_pb2.Heartbeat)
    draining: bool = False
    stuck_at: int | None = None
    held: dict[int, learner_pb2.HeldLane] = dataclasses.field(default_factory=dict)
    stream: SendQueue | None = None

    @property
    def name(self) -> str:
        """The worker's name, which is stable across restarts."""
        return str(self.join_request.worker_name)

    @property
    def is_empty_relay(self) -> bool:
        """Whether it is a relay without workers."""
        return bool(self.join_request.relay and not self.heartbeat.workers)

    def is_silent(self, now_s: float, heartbeat_s: float) -> bool:
        """Return whether it has been silent for too long to be given new work."""
        return now_s - self.last_message_s > SUSPECT_HEARTBEATS * heartbeat_s

    def open_stream(self, now_s: float) -> SendQueue:
        """Return the send queue of a new stream, after closing that of an earlier one."""
        if self.stream is not None:
            self.stream.close()
        self.stream, self.last_message_s = SendQueue(), now_s
        return self.stream

    def send(self, message: learner_pb2.LearnerMessage) -> None:
        """Queue a message; without an open stream, drop it: opening a stream sends the current state."""
        if self.stream is not None:
            self.stream.put(message)

    def note_held(self, lanes: Iterable[learner_pb2.HeldLane]) -> None:
        """Record the lane states that the worker has, as its Join or heartbeat lists them."""
        self.held = {lane.lane: lane for lane in lanes}

    def rejoin(self, join_request: learner_pb2.JoinRequest, now_s: float) -> None:
        """Store a new Join request and create a new secret."""
        self.join_request, self.last_message_s = join_request, now_s
        self.secret = secrets.token_urlsafe(32)

    def take_heartbeat(self, heartbeat: learner_pb2.Heartbeat) -> None:
        """Store a heartbeat; if it shows progress, the session is no longer stuck."""
        if self.stuck_at is not None and has_progressed(self.heartbeat, heartbeat, self.stuck_at):
            self.stuck_at = None
        self.heartbeat = heartbeat


S = TypeVar("S", bound=Session)


class SessionTable(Generic[S]):
    """The sessions that have not ended, in order of joining."""

    def __init__(self, new_session: Callable[[str, learner_pb2.JoinRequest, str, float], S]) -> None:
        """Create sessions with `new_session(session_id, join_request, secret, now_s)`."""
        self._new_session = new_session
        self._sessions: dict[str, S] = {}
        self._opened = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[S]:
        return iter(list(self._sessions.values()))

    def open(self, join_request: learner_pb2.JoinRequest, now_s: float) -> S:
        """Start a session."""
        self._opened += 1
        session_id = f"{join_request.worker_name}#{self._opened}"
        session = self._new_session(session_id, join_request, secrets.token_urlsafe(32), now_s)
        self._sessions[session_id] = session
        return session

    def close(self, session: S) -> None:
        """Remove a session."""
        self._sessions.pop(session.session_id, None)

    def clear(self) -> None:
        """Remove all sessions; their numbers are not reused."""
        self._sessions.clear()

    def get(self, session_id: str) -> S | None:
        """Return a session by its id, or None."""
        return self._sessions.get(session_id)

    def named(self, name: str) -> S | None:
        """Return a session by the worker's name, or None."""
        return next((session for session in self if session.name == name), None)

    def with_secret(self, secret: str) -> S | None:
        """Return the session with a secret, or None. Compare all secrets in constant time."""
        found = None
        for session in self:
            if hmac.compare_digest(session.secret.encode(), secret.encode()):
                found = session
        return found
