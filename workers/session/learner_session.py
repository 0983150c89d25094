"""A worker's session with the learner, which survives broken streams and restarts of the learner.

The receiver thread joins, receives messages, and joins again; the heartbeat thread sends heartbeats; gRPC's
thread pulls the messages to send from the session state. A broken stream does not end the session: only
a session closed by the learner, a denied Join, or the absence of a learner for `orphan_ttl_s` does.
"""

import faulthandler
import random
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Final

from protos.exit_codes import ExitCode, RefusedError
from protos.unspool.v1 import learner_pb2
from workers.exits import End
from workers.session.client import LearnerClient, LearnerStream, UnavailableError
from workers.session.session_state import Joined, SessionState, TooManyCommandsError

_JOIN_THREAD_S = 5.0
_ORPHAN_TTL_S = 1800.0
_STACK_CHARACTERS = 64 * 1024

_FINAL_GOODBYES = {
    learner_pb2.Goodbye.FINISHED: ExitCode.OK,
    learner_pb2.Goodbye.STOPPED: ExitCode.OK,
    learner_pb2.Goodbye.DRAINED: ExitCode.OK,
    learner_pb2.Goodbye.SUPERSEDED: ExitCode.REFUSED,
    learner_pb2.Goodbye.FAILED: ExitCode.REFUSED,
    learner_pb2.Goodbye.EVICTED: ExitCode.EVICTED,
}
"""Goodbyes after which a worker does not join again, with the exit code of its process."""

DRAIN_S: Final = 60.0
"""Time limit for delivering pending messages during a drain."""

FIRST_DELAY_S: Final = 0.1
"""The longest delay before a worker's first attempt to reach its learner again."""

LONGEST_DELAY_S: Final = 2.0
"""The longest delay before a worker tries to reach its learner again."""


def retry_delay_s(attempt: int, draws: random.Random) -> float:
    """Return how long to wait before an attempt, drawn evenly from zero to a ceiling that doubles each time.

    Full jitter spreads a herd better than a jittered exponential ("Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015). The first attempt is 0.
    """
    doublings = min(attempt, 10)  # by then the ceiling is the longest delay
    return draws.uniform(0.0, min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**doublings))


class LearnerSession:
    """A session with the learner that survives its streams.

    The constructor starts nothing; `start` does, and `close` joins every thread.
    """

    def __init__(
        self,
        client: LearnerClient,
        session_state: SessionState,
        join_request: learner_pb2.JoinRequest,
        report: Callable[[], learner_pb2.Heartbeat],
        *,
        orphan_ttl_s: float = _ORPHAN_TTL_S,
        clock: Callable[[], float] = time.monotonic,
        draws: random.Random | None = None,
    ) -> None:
        """Prepare a session.

        Args:
            client: connection to the learner; `close` closes it.
            session_state: shared with the worker.
            join_request: the request to join; `held` is filled in at each Join.
            report: returns the current heartbeat; called from the session's threads.
            orphan_ttl_s: how long to look for the first learner; its reply to Join replaces this value.
            clock: monotonic seconds.
            draws: jitter of heartbeats and retries.
        """
        self._client = client
        self._session_state = session_state
        self._join_request = join_request
        self._report = report
        self._orphan_ttl_s = orphan_ttl_s
        self._clock = clock
        self._draws = draws or random.Random()
        self._heartbeat_s = 1.0
        self._reply: learner_pb2.JoinReply | None = None
        self._is_fresh_join = False
        self._stream: LearnerStream | None = None
        self._attempts = 0
        self._trouble: str | None = "it has not answered yet"
        self._last_message_s = 0.0
        self._connected = threading.Event()
        self._stopping = threading.Event()
        name = join_request.worker_name
        self._threads = [
            threading.Thread(target=self._run, name=f"receiver-{name}", daemon=True),
            threading.Thread(target=self._send_heartbeats, name=f"heartbeat-{name}", daemon=True),
        ]

    @property
    def trouble(self) -> str | None:
        """Why there is no stream at the moment, or None if there is one."""
        return self._trouble

    def start(self) -> None:
        """Start looking for the learner; `Joined` is the first command in the session state."""
        self._last_message_s = self._clock()
        for thread in self._threads:
            thread.start()

    def leave(self, reason: str, timeout_s: float, *, is_unfit: bool = False) -> bool:
        """Send what is queued, close the stream, and tell the learner that this worker leaves or is unfit.

        Returns False if time ran out before everything was sent.
        """
        self._session_state.leave()
        end = self._session_state.wait_for_end(timeout_s)
        if end is None or end.code is not ExitCode.OK or self._reply is None:
            return False
        try:
            self._client.leave(self._reply.session_id, reason, is_unfit=is_unfit)
        except (RefusedError, UnavailableError):
            # The lanes are returned already: a learner that is gone, or does not know the session, holds none
            # of them.
            return True
        return True

    def leave_drained(self, reason: str, timeout_s: float) -> End:
        """Leave because of a drain, after returning all lanes; return how this process ends."""
        if self._reply is None or self.leave(reason, timeout_s):
            return End(ExitCode.OK, f"drained: {reason}")
        return self._session_state.end or End(
            ExitCode.TEMPORARY, f"drained, but had no chance to return its lanes: {self.trouble}"
        )

    def close(self) -> None:
        """End every thread. The learner sees a broken stream unless `leave` came before."""
        self._finish(End(ExitCode.OK, "closed"))
        self._client.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(_JOIN_THREAD_S)

    # The receiver thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                stream = self._connect()
                if stream is not None:
                    self._receive(stream)
                self._give_up_if_orphaned()
                self._stopping.wait(retry_delay_s(self._attempts, self._draws))
                self._attempts += 1
        except RefusedError as refusal:
            self._finish(End(ExitCode.REFUSED, str(refusal)))
        except Exception as error:
            self._finish(End.crashed(error))

    def _connect(self) -> LearnerStream | None:
        try:
            reply = self._join()
            outgoing = self._session_state.new_stream(self._report)
            stream = self._client.open_session(reply.session_secret, outgoing)
        except UnavailableError as error:
            self._trouble = str(error)
            return None
        self._last_message_s = self._clock()
        self._stream, self._trouble = stream, None
        self._connected.set()
        if self._stopping.is_set():
            stream.cancel()
        return stream

    def _join(self) -> learner_pb2.JoinReply:
        held = self._report().lanes
        request = learner_pb2.JoinRequest()
        request.CopyFrom(self._join_request)
        request.held.extend(held)
        reply = self._client.join(request)
        self._check_term(reply)
        # Leases survive only within one session, unless a goodbye ended it.
        fresh = self._is_fresh_join or self._reply is None or not _same_session(self._reply, reply)
        self._reply, self._is_fresh_join = reply, False
        self._orphan_ttl_s = reply.orphan_ttl_s or self._orphan_ttl_s
        self._heartbeat_s = reply.heartbeat_s or self._heartbeat_s
        leases = frozenset((lane.lane, lane.fencing_token) for lane in held)
        self._session_state.joined(Joined(reply, leases, fresh))
        return reply

    def _check_term(self, reply: learner_pb2.JoinReply) -> None:
        """Reject the reply of a learner that has been replaced by a newer one and has not noticed yet."""
        known = self._reply
        if known is not None and known.run_id == reply.run_id and reply.term < known.term:
            raise UnavailableError(
                f"an outdated learner answered: its term is {reply.term}, that of the run {known.term}"
            )

    def _receive(self, stream: LearnerStream) -> None:
        trouble = "it closed the stream"
        try:
            for message in stream:
                self._last_message_s = self._clock()
                self._attempts = 0
                if message.HasField("goodbye"):
                    trouble = self._take_goodbye(message.goodbye)
                    break
                if message.HasField("stack_request") and not self._session_state.forwards:
                    self._session_state.send_stack(thread_stacks()[-_STACK_CHARACTERS:])
                else:
                    self._session_state.receive(message)
        except (UnavailableError, RefusedError, TooManyCommandsError) as error:
            # Only a denied Join ends a session: a learner that has restarted does not know this session's
            # secret.
            trouble = str(error)
        self._stream, self._trouble = None, self._trouble or trouble
        stream.cancel()
        self._session_state.close_stream()
        if self._session_state.has_left:
            self._finish(End(ExitCode.OK, "left"))

    def _take_goodbye(self, goodbye: learner_pb2.Goodbye) -> str:
        reason = f"{learner_pb2.Goodbye.Reason.Name(goodbye.reason)} {goodbye.detail}".rstrip()
        if goodbye.reason in _FINAL_GOODBYES:
            self._finish(End(_FINAL_GOODBYES[goodbye.reason], reason))
        else:
            self._is_fresh_join = True
        return f"it ended the session: {reason}"

    def _give_up_if_orphaned(self) -> None:
        silent_s = self._clock() - self._last_message_s
        if silent_s > self._orphan_ttl_s:
            reason = (
                f"no learner for {silent_s:.0f} s (orphan_ttl_s = {self._orphan_ttl_s:g}): {self._trouble}"
            )
            self._finish(End(ExitCode.TEMPORARY, reason))

    # The heartbeat thread.

    def _send_heartbeats(self) -> None:
        self._connected.wait()
        while not self._stopping.wait(self._heartbeat_s * self._draws.uniform(0.8, 1.0)):
            self._send_heartbeat()

    def _send_heartbeat(self) -> None:
        stream = self._stream
        if stream is None:
            return
        self._session_state.send_heartbeat(self._report())
        unanswered_s = self._clock() - self._last_message_s
        if unanswered_s > 2.0 * self._heartbeat_s:
            # The direction from the learner to this worker may be broken; the learner cannot detect that.
            self._trouble = f"it has not acknowledged a heartbeat for {unanswered_s:.1f} s"
            stream.cancel()

    def _finish(self, end: End) -> None:
        self._session_state.finish(end)
        self._stopping.set()
        self._connected.set()
        stream = self._stream
        if stream is not None:
            stream.cancel()


def _same_session(before: learner_pb2.JoinReply, after: learner_pb2.JoinReply) -> bool:
    return (before.term, before.session_id) == (after.term, after.session_id)


def thread_stacks() -> str:
    """Return every thread's stack, the innermost call first. May be called from any thread."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read()
