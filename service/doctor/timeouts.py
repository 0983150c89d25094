"""The hierarchy of timeouts: two are configured, the others are derived, and each must fit into the next."""

import dataclasses
from collections.abc import Sequence
from typing import Final

from learner.tables import LivenessTable
from protos.rpc.connection import CONNECTION_OPTIONS
from service.supervise.fleet import DRAIN_S, KILL_GRACE_S
from workers.session.learner_session import LONGEST_DELAY_S as RECONNECT_S

_RECONNECTS: Final = 2
_LEARNER_RESTART_S: Final = 15.0  # time for a killed learner to be restarted
_OPTIONS: Final = dict(CONNECTION_OPTIONS)


@dataclasses.dataclass(frozen=True)
class Timeouts:
    """Every timeout of a run that concerns silence, in seconds.

    Attributes:
        heartbeat_s: between a worker's heartbeats; configured.
        suspect_s: silence after which a worker is suspect. It keeps its lanes.
        lease_ttl_s: silence after which a worker's lanes are leased to others; from `patience`.
        keepalive_s: time until a frozen peer's connection is closed.
        reconnect_s: longest delay before a worker tries to reach its learner again.
        orphan_ttl_s: time without a learner after which a worker ends itself; configured.
        drain_s: time for a worker to return its lanes when it is scaled down.
        kill_grace_s: time from then until it is killed.
    """

    heartbeat_s: float
    suspect_s: float
    lease_ttl_s: float
    keepalive_s: float
    reconnect_s: float
    orphan_ttl_s: float
    drain_s: float
    kill_grace_s: float

    @classmethod
    def of(cls, liveness: LivenessTable) -> "Timeouts":
        """Derive the timeouts from the configuration's `[liveness]`."""
        return cls(
            heartbeat_s=liveness.heartbeat_s,
            suspect_s=2 * liveness.heartbeat_s,
            lease_ttl_s=liveness.lease_ttl_s,
            keepalive_s=(_OPTIONS["grpc.keepalive_time_ms"] + _OPTIONS["grpc.keepalive_timeout_ms"]) / 1e3,
            reconnect_s=RECONNECT_S,
            orphan_ttl_s=liveness.orphan_ttl_s,
            drain_s=DRAIN_S,
            kill_grace_s=KILL_GRACE_S,
        )

    def __str__(self) -> str:
        timeouts = dataclasses.asdict(self).items()
        return ", ".join(
            f"{name.removesuffix('_s').replace('_', ' ')} {seconds:g} s" for name, seconds in timeouts
        )


def inconsistencies(timeouts: Timeouts) -> Sequence[tuple[str, str]]:
    """Return each violated rule with its remedy; empty if there is none."""
    t = timeouts
    rules = (
        (
            t.lease_ttl_s > _RECONNECTS * t.reconnect_s,
            f"lanes are leased to others after {t.lease_ttl_s:g} s; a worker may need "
            f"{_RECONNECTS * t.reconnect_s:g} s to reconnect",
            "raise liveness.heartbeat_s or liveness.patience",
        ),
        (
            t.orphan_ttl_s > t.lease_ttl_s,
            f"a worker exits after {t.orphan_ttl_s:g} s without a learner, which keeps its lanes for "
            f"{t.lease_ttl_s:g} s",
            f"raise liveness.orphan_ttl_s above {t.lease_ttl_s:g}",
        ),
        (
            t.orphan_ttl_s > _LEARNER_RESTART_S,
            f"a worker exits after {t.orphan_ttl_s:g} s without a learner, which takes up to "
            f"{_LEARNER_RESTART_S:g} s to restart",
            f"raise liveness.orphan_ttl_s above {_LEARNER_RESTART_S:g}",
        ),
    )
    return [(text, remedy) for holds, text, remedy in rules if not holds]
