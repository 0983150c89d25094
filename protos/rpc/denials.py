"""Counts of callers that were denied access, by reason."""

import collections
import enum
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

HANDSHAKE_S: Final = 10.0
"""How long a TLS handshake may take. gRPC ends slower ones."""

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
    """A gradient of another shape."""
    UNFIT_WORKER = "unfit_worker"
    """A worker that saw at its Join that its theta, its code or its CPUs are not those of the run."""
    WRONG_HOST = "wrong_host"
    """HTTP under a name that is not this machine's."""
    BAD_NAME = "bad_name"
    """A worker whose name or incarnation cannot be one."""
    NO_ROOM = "no_room"
    EXCLUDED_HOST = "excluded_host"
    """A worker on a host where estimates fail that do not fail elsewhere."""
    NO_SESSION = "no_session"
    """A stream without the secret of a Join."""
    NO_CERTIFICATE = "no_certificate"
    """None that says `unspool://RUN/ROLE`."""
    TLS_HANDSHAKE = "tls_handshake"
    """Expired, of another authority, or none: what TLS itself refuses."""
    TOO_LARGE = "too_large"


class Denials:
    """Counts since a server's start. Safe to use from any thread.

    gRPC does not tell which handshakes failed, only that one begins. One that no call from a new peer has
    followed within `HANDSHAKE_S` counts as refused.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[DenialReason, str], None] = lambda reason, text: None,
    ) -> None:
        """Count on `clock`; `report` gets the first refusal of each reason, so that a flood fills no log."""
        self._lock = threading.Lock()
        self._clock = clock
        self._report = report
        self._counts: Counter[DenialReason] = Counter()
        self._handshakes: collections.deque[float] = collections.deque(maxlen=_HANDSHAKES)
        self._peers: OrderedDict[str, None] = OrderedDict()

    def add(self, reason: DenialReason, text: str) -> None:
        """Count a refusal; `text` says whose it was."""
        with self._lock:
            self._counts[reason] += 1
            is_first = self._counts[reason] == 1
        if is_first:
            self._report(reason, text[:_TEXT_CHARACTERS])

    def handshake_began(self) -> None:
        """Take note that somebody has connected to a gRPC server."""
        with self._lock:
            self._settle()
            self._handshakes.append(self._clock())

    def called(self, peer: str) -> None:
        """Take note of a call; the first one of `peer` ends its handshake."""
        with self._lock:
            self._settle()
            if peer not in self._peers and self._handshakes:
                self._handshakes.popleft()
            self._peers[peer] = None
            self._peers.move_to_end(peer)
            if len(self._peers) > _PEERS:
                self._peers.popitem(last=False)

    def counts(self) -> dict[str, int]:
        """Return how many callers were refused, by reason; reasons that did not occur are left out."""
        with self._lock:
            self._settle()
            return {str(reason): count for reason, count in self._counts.items()}

    def _settle(self) -> None:
        overdue_s = self._clock() - HANDSHAKE_S
        while self._handshakes and self._handshakes[0] < overdue_s:
            self._handshakes.popleft()
            self._counts[DenialReason.TLS_HANDSHAKE] += 1
