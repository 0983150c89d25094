"""A relay process: one session with the learner, and one with each of its workers.

A node with many workers opens one stream to the learner instead of many and fetches each theta once. If the
learner averages gradients, the relay also sends one gradient in place of several.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from protos.exit_codes import ExitCode
from protos.rpc.access import Access
from protos.rpc.connection import address_of, advertised_host, is_loopback
from protos.rpc.denials import Denials
from protos.rpc.roles import Role
from protos.rpc.server import GrpcServer, reuse_large_blocks
from protos.rpc.server_tls import ServerTls
from protos.rpc.session_service import SessionServicer
from protos.rpc.tls import TlsError, check_server
from protos.unspool.v1 import learner_pb2, learner_pb2_grpc
from workers.bootstrap import Devices, environment
from workers.exits import End
from workers.main import log_to, run_until_signalled
from workers.relay.core import RelayCore
from workers.session.client import LearnerClient
from workers.session.learner_session import DRAIN_S, LearnerSession
from workers.session.session_state import Joined, SessionState
from workers.settings import WorkerSettings, join_request

_logger = logging.getLogger(__name__)

_TICK_S = 0.25
_SPARE_THREADS = 16
_GOODBYE_S = 3.0
_CLOSE_REASONS = {
    ExitCode.OK: learner_pb2.Goodbye.FINISHED,
    ExitCode.REFUSED: learner_pb2.Goodbye.FAILED,
}
"""The Goodbye reason for workers, by exit code; after any other code they look for another relay."""


@dataclass(frozen=True)
class RelaySettings:
    """Settings of one relay process.

    Attributes:
        upstream: the learner's address and this relay's credentials; workers must present the same token.
        host: address to listen on. Beyond loopback it needs `upstream.tls`, with a certificate for servers.
        port: port to listen on; 0 takes any free one.
        max_workers: maximum number of connected workers.
        is_tls_mutual: whether workers must present a client certificate of the run in addition to the token.
    """

    upstream: WorkerSettings
    host: str = "127.0.0.1"
    port: int = 0
    max_workers: int = 64
    is_tls_mutual: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"RelaySettings(port={self.port!r}): must be 0 to 65535")
        if self.max_workers < 1:
            raise ValueError(f"RelaySettings(max_workers={self.max_workers!r}): must be positive")
        if self.is_tls_mutual and (self.upstream.tls is None or is_loopback(self.host)):
            raise ValueError(
                "RelaySettings(is_tls_mutual=True): client certificates need TLS, which a relay uses beyond "
                "loopback; give `host` and the TLS files, or leave it out"
            )


class Relay:
    """A relay. It binds its port on construction and serves it during `run`."""

    def __init__(self, settings: RelaySettings, client: LearnerClient) -> None:
        """Bind the port.

        Args:
            settings: of this process.
            client: connection to the learner, or to another relay; closed at the end.

        Raises:
            PortInUseError: the port is taken, or the machine has no such address.
            TlsError: the address needs TLS files that workers accept.
        """
        self._settings = settings
        self._session_state = SessionState(forwards=True)
        self._core = RelayCore(self._session_state, client, settings.max_workers)
        denials = Denials(report=lambda reason, text: _logger.warning("denied: %s: %s", reason, text))
        self._access = Access(
            {Role.WORKER: settings.upstream.token}, None, denials, is_mutual=settings.is_tls_mutual
        )
        self._servicer = SessionServicer(self._core)
        threads = settings.max_workers + _SPARE_THREADS
        self._server = GrpcServer("relay", threads, self._access, _server_tls(settings, denials))
        learner_pb2_grpc.add_LearnerServicer_to_server(self._servicer, self._server.server)
        port = self._server.bind(settings.host, settings.port)
        self.address = address_of(advertised_host(settings.host, None), port)
        self._session = LearnerSession(
            client,
            self._session_state,
            _join_request(settings.upstream),
            self._core.report,
        )
        self._drain: learner_pb2.Drain | None = None

    def run(self) -> int:
        """Run until the run is over, the learner is permanently unreachable, or this relay is drained.

        Returns:
            The process's exit code, an `ExitCode`.
        """
        name = self._settings.upstream.name
        _logger.info("%s relays %s at %s", name, self._settings.upstream.learner, self.address)
        self._server.start()
        self._session.start()
        try:
            end = self._relay()
        except Exception as error:
            end = End.crashed(error)
        finally:
            self._session.close()
        self._core.close_all(_CLOSE_REASONS.get(end.code, learner_pb2.Goodbye.EXPIRED), end.reason)
        self._server.stop(_GOODBYE_S)
        self._servicer.join_readers()
        level = logging.INFO if end.code is ExitCode.OK else logging.ERROR
        _logger.log(level, "%s ends with %d: %s", name, end.code, end.reason)
        return int(end.code)

    def drain(self, reason: str) -> None:
        """Drain the relay: every worker returns its lanes and leaves, then `run` returns."""
        self._drain = self._drain or learner_pb2.Drain(reason=reason, deadline_s=DRAIN_S)
        self._session_state.wake()

    def _relay(self) -> End:
        drained_by_s: float | None = None
        next_tick_s = 0.0
        while True:
            # Read the revision first, so that `wait` returns at once if anything changes after this line.
            seen = self._session_state.revision
            self._execute()
            if self._session_state.end is not None:
                return self._session_state.end
            now_s = time.monotonic()
            if self._drain is not None and drained_by_s is None:
                self._core.drain(self._drain)
                drained_by_s = now_s + (self._drain.deadline_s or DRAIN_S)
            if drained_by_s is not None and (self._core.is_empty or now_s >= drained_by_s):
                return self._leave(self._drain.reason if self._drain is not None else "drained")
            if now_s >= next_tick_s:
                self._core.tick()
                next_tick_s = now_s + _TICK_S
            self._session_state.wait(seen, max(0.0, next_tick_s - now_s))

    def _execute(self) -> None:
        for command in self._session_state.commands():
            match command:
                case Joined():
                    self._access.run_id = command.reply.run_id
                    self._core.joined(command)
                case learner_pb2.Drain():
                    self._drain = self._drain or command
                case learner_pb2.LearnerMessage():
                    self._core.receive(command)

    def _leave(self, reason: str) -> End:
        self._core.give_back(reason)
        return self._session.leave_drained(reason, DRAIN_S)


def run(settings: RelaySettings, announce: Callable[[str], None]) -> int:
    """Run a relay as this process's main work and return its exit code.

    The first SIGTERM or SIGINT drains the relay and its workers; the second ends the process at once.

    Args:
        settings: of this process.
        announce: called with "host:port" once workers can connect.

    Raises:
        OSError: the relay cannot listen on its address.
        TlsError: the TLS files are unusable, or missing where they are required.
    """
    for name, value in environment(Devices()).items():
        os.environ.setdefault(name, value)
    log_to(None)
    reuse_large_blocks()
    upstream = settings.upstream
    relay = Relay(settings, LearnerClient(upstream.learner, upstream.token, upstream.tls))
    announce(relay.address)
    return run_until_signalled(relay)


def _join_request(settings: WorkerSettings) -> learner_pb2.JoinRequest:
    request = join_request(settings)
    request.relay = True
    return request


def _server_tls(settings: RelaySettings, denials: Denials) -> ServerTls | None:
    """Return the server's TLS settings. Beyond loopback, TLS and a server certificate are required."""
    if is_loopback(settings.host):
        return None
    identity = settings.upstream.tls
    if identity is None:
        raise TlsError(
            f"relay: beyond loopback, at {settings.host}, connections must be encrypted: name --tls"
        )
    check_server(identity, advertised_host(settings.host, None).strip("[]"))
    return ServerTls(identity, denials, is_mutual=settings.is_tls_mutual)
