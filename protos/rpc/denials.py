"""Counts of callers that were denied access, by reason."""

import collections
import enum
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

HANDSHAKE_S: Final = 10.0
"""The time limit for TLS handshakes, which gRPC enforces."""

_PEERS: Final = 256
_TEXT_CHARACTERS: Final = 500
_HANDSHAKES: Final = 10_000


class DenialReason(enum.StrEnum):
    """Why access was denied."""

    NO_TOKEN = "no_token"
    WRONG_TOKEN = "wrong_token"
    WRONG_ROLE = "wrong_role"
    WRONG_RUN = "wrong_run"
    WRONG_PROTOCOL = "wrong_protocol"
    WRONG_SCHEMA = "wrong_schema"
    """A gradient with a different schema."""
    UNFIT_WORKER = "unfit_worker"
    """A worker that found at its Join that its theta, its code or its CPUs do not match the run."""
    WRONG_HOST = "wrong_host"
    """An HTTP request whose Host header is not a loopback name."""
    BAD_NAME = "bad_name"
    """A worker with an invalid name or process UUID."""
    NO_ROOM = "no_room"
    EXCLUDED_HOST = "excluded_host"
    """A worker on a host that was excluded because estimates fail only there."""
    NO_SESSION = "no_session"
    """A stream without the secret of a Join."""
    NO_CERTIFICATE = "no_certificate"
    """No client certificate with a URI `unspool://RUN/ROLE`."""
    TLS_HANDSHAKE = "tls_handshake"
    """A failed TLS handshake: a missing or expired certificate, or one of another authority."""
    TOO_LARGE = "too_large"


class Denials:
    """Counts of denials since a server's start. Thread-safe.

    gRPC reports the start of a handshake but not its failure. A handshake counts as failed if no call from a
    new peer follows within `HANDSHAKE_S`.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[DenialReason, str], None] = lambda reason, text: None,
    ) -> None:
        """Use `clock` for times; call `report` only for the first denial of each reason, to bound logs."""
        self._lock = threading.Lock()
        self._clock = clock
        self._report = report
        self._counts: Counter[DenialReason] = Counter()
        self._handshakes: collections.deque[float] = collections.deque(maxlen=_HANDSHAKES)
        self._peers: OrderedDict[str, None] = OrderedDict()

    def add(self, reason: DenialReason, text: str) -> None:
        """Count a denial; `text` describes it and the caller."""
        with self._lock:
            self._counts[reason] += 1
            is_first = self._counts[reason] == 1
        if is_first:
            self._report(reason, text[:_TEXT_CHARACTERS])

    def handshake_began(self) -> None:
        """Record the start of a TLS handshake on a gRPC server."""
        with self._lock:
            self._settle()
            self._handshakes.append(self._clock())

    def called(self, peer: str) -> None:
        """Record a call; the first call of `peer` completes a handshake."""
        with self._lock:
            self._settle()
            if peer not in self._peers and self._handshakes:
                self._handshakes.popleft()
            self._peers[peer] = None
            self._peers.move_to_end(peer)
            if len(self._peers) > _PEERS:
                self._peers.popitem(last=False)

    def counts(self) -> dict[str, int]:
        """Return the number of denials by reason, without reasons that did not occur."""
        with self._lock:
            self._settle()
            return {str(reason): count for reason, count in self._counts.items()}

    def _settle(self) -> None:
        overdue_s = self._clock() - HANDSHAKE_S
        while self._handshakes and self._handshakes[0] < overdue_s:
            self._handshakes.popleft()
            self._counts[DenialReason.TLS_HANDSHAKE] += 1
