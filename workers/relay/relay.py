"""A relay's life: one conversation with the learner, one with each of its workers, and what passes between.

A node with many workers opens one stream to the learner instead of many, fetches each theta once, and where
the learner takes means sends one gradient in the place of several.
"""

import logging
import time
import traceback
from dataclasses import dataclass

from protos.exit_codes import ExitCode
from protos.rpc.connection import address_of, advertised_host
from protos.rpc.tls import Identity
from protos.unspool.v1 import learner_pb2
from workers.client import LearnerClient
from workers.exits import End
from workers.introduction import introduction
from workers.mailbox import Joined, Mailbox
from workers.relay.core import RelayCore
from workers.relay.plane import RelayServicer
from workers.relay.server import RelayServer
from workers.session import Session
from workers.settings import WorkerSettings

_logger = logging.getLogger(__name__)

_TICK_S = 0.25
_FAREWELLS = {
    ExitCode.OK: learner_pb2.Goodbye.FINISHED,
    ExitCode.REFUSED: learner_pb2.Goodbye.FAILED,
}
"""What workers are told at a relay's end; after any other they look for the next relay."""


@dataclass(frozen=True)
class RelaySettings:
    """One life of one relay.

    Attributes:
        upstream: whom it looks for, and as whom; its token is also what workers have to present.
        host: address to listen on. Beyond loopback it needs `upstream.tls`, with a certificate for servers.
        port: 0: any that is free.
        max_workers: behind it at once.
    """

    upstream: WorkerSettings
    host: str = "127.0.0.1"
    port: int = 0
    max_workers: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"RelaySettings(port={self.port!r}): must be 0 to 65535")
        if self.max_workers < 1:
            raise ValueError(f"RelaySettings(max_workers={self.max_workers!r}): must be positive")

    @property
    def tls(self) -> Identity | None:
        """The relay's TLS files."""
        return self.upstream.tls


class Relay:
    """A relay that has a port from its construction on, and serves it while `run` lasts."""

    def __init__(self, settings: RelaySettings, client: LearnerClient) -> None:
        """Take a port.

        Args:
            settings: of this process.
            client: reaches the learner, or another relay; closed at the end.

        Raises:
            OSError: the port is taken.
            TlsError: the address needs TLS files that workers accept.
        """
        self._settings = settings
        self._mailbox = Mailbox(forwards=True)
        self._core = RelayCore(self._mailbox, settings.max_workers)
        self._servicer = RelayServicer(self._core, client)
        self._server = RelayServer(
            self._servicer, settings.upstream.token, settings.max_workers, settings.tls
        )
        port = self._server.bind(settings.host, settings.port)
        self.address = address_of(advertised_host(settings.host, None), port)
        self._session = Session(
            client,
            self._mailbox,
            _introduction(settings.upstream),
            self._core.report,
            orphan_ttl_s=settings.upstream.orphan_ttl_s,
        )
        self._drain: learner_pb2.Drain | None = None

    def run(self) -> int:
        """Relay until the run is over, the learner is gone for good, or this relay is drained.

        Returns:
            The process's exit code, an `ExitCode`.
        """
        name = self._settings.upstream.name
        _logger.info("%s relays %s at %s", name, self._settings.upstream.learner, self.address)
        self._server.start()
        self._session.start()
        try:
            end = self._relay()
        except Exception:
            end = End(ExitCode.FAILED, traceback.format_exc())
        finally:
            self._session.close()
        self._core.dismiss(_FAREWELLS.get(end.code, learner_pb2.Goodbye.EXPIRED), end.reason)
        self._server.stop()
        level = logging.INFO if end.code is ExitCode.OK else logging.ERROR
        _logger.log(level, "%s ends with %d: %s", name, end.code, end.reason)
        return int(end.code)

    def drain(self, reason: str) -> None:
        """Let every worker return its lanes and go, and return from `run`."""
        self._drain = self._drain or learner_pb2.Drain(
            reason=reason, deadline_s=self._settings.upstream.drain_s
        )
        self._mailbox.wake()

    def _relay(self) -> End:
        drained_by_s: float | None = None
        next_tick_s = 0.0
        while True:
            # Read before anything is looked at, so that nothing that changes meanwhile is slept through.
            seen = self._mailbox.revision
            self._obey()
            if self._mailbox.end is not None:
                return self._mailbox.end
            now_s = time.monotonic()
            if self._drain is not None and drained_by_s is None:
                self._core.drain(self._drain)
                drained_by_s = now_s + (self._drain.deadline_s or self._settings.upstream.drain_s)
            if drained_by_s is not None and (self._core.is_empty or now_s >= drained_by_s):
                return self._leave(self._drain)
            if now_s >= next_tick_s:
                self._core.tick()
                next_tick_s = now_s + _TICK_S
            self._mailbox.wait(seen, max(0.0, next_tick_s - now_s))

    def _obey(self) -> None:
        for order in self._mailbox.orders():
            match order:
                case Joined():
                    self._core.joined(order)
                case learner_pb2.Drain():
                    self._drain = self._drain or order
                case learner_pb2.LearnerMessage():
                    self._core.hear(order)

    def _leave(self, drain: learner_pb2.Drain | None) -> End:
        reason = drain.reason if drain is not None else "drained"
        self._core.give_back(reason)
        if not self._core.reply.worker_id or self._session.leave(reason, self._settings.upstream.drain_s):
            return End(ExitCode.OK, f"drained: {reason}")
        return self._mailbox.end or End(
            ExitCode.TEMPORARY, f"drained, but had no chance to return its lanes: {self._session.trouble}"
        )


def _introduction(settings: WorkerSettings) -> learner_pb2.JoinRequest:
    request = introduction(settings)
    request.relay = True
    return request
