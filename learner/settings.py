"""Everything a learner is told when it starts."""

import dataclasses
from pathlib import Path
from typing import Final, Literal

from learner.scale import Scale, WorkersRange
from protos.rpc.access import Tokens
from protos.rpc.connection import is_loopback
from protos.rpc.tls import Identity
from unspool.experiment import Experiment

BUFFERED_BATCHES: Final = 5
"""Updates whose gradients may wait at the learner."""


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """A learner's configuration; `serve` takes nothing else.

    Attributes:
        run_dir: the run directory, which exists.
        run_id: the run's name.
        experiment: what decides theta.
        experiment_toml: the same as text; workers build their lanes from it.
        config_sha256: digest of the part of the configuration that decides theta. A checkpoint of another one
            is not resumed.
        mode: `sync` is a barrier over all lanes; `async` takes whatever is not too old; `quorum` waits for a
            share of the lanes.
        batch: gradients in an update; all lanes in `sync` and `quorum`.
        max_staleness: versions a gradient may be behind (`async`, `quorum`).
        credits_per_lane: pushes of a lane that may wait at the learner.
        host: address to bind.
        port: of the data plane; 0 picks a free one, as for the other two.
        admin_port: of the operator's plane.
        http_port: of the status pages.
        tokens: what callers must present, each role its own.
        heartbeat_s: how often workers report.
        lease_ttl_s: how long a silent worker keeps its lanes.
        orphan_ttl_s: how long a worker without a learner goes on trying.
        checkpoint_every: versions between checkpoints, and estimates between snapshots of a lane.
        checkpoint_keep: checkpoints kept.
        workers_desired: workers the operator wants; `Admin.Scale` changes it.
        max_workers: workers admitted at once.
        quorum: share of the lanes that a `quorum` update needs.
        grace_s: how long a `quorum` update waits for the others once it has its share; None: as long as they
            lately took.
        staleness_weighting: `inverse` weighs a gradient that is s versions behind by 1 / (1 + s).
        on_rollback: what lanes go on from once theta has gone back to a checkpoint: `keep` what workers hold,
            `restore` what the checkpoint has, `reset` to the beginning. `sync` always restores.
        checkpoint_give_up_s: how long the run goes on although no checkpoint can be written.
        workers_min: if given, the learner itself chooses `workers_desired`, from it to `max_workers`.
        gather_s: how long the first lanes wait, so that `workers_desired` workers share them from the start.
        chunk_bytes: largest piece of a body in one message.
        max_snapshot_bytes: largest lane snapshot accepted.
        advertise: the name or address under which others reach `host`; empty to find out.
        tls: what the learner shows to callers; None: connections are not encrypted.
        is_tls_mutual: whether callers must show certificates too.
        is_insecure: whether an address beyond loopback may be bound without TLS.
    """

    run_dir: Path
    run_id: str
    experiment: Experiment
    experiment_toml: str
    config_sha256: str
    mode: Literal["sync", "async", "quorum"]
    batch: int
    max_staleness: int
    credits_per_lane: int
    host: str
    port: int
    admin_port: int
    http_port: int
    tokens: Tokens
    heartbeat_s: float
    lease_ttl_s: float
    orphan_ttl_s: float
    checkpoint_every: int
    checkpoint_keep: int
    workers_desired: int
    max_workers: int
    quorum: float = 1.0
    grace_s: float | None = 0.0
    staleness_weighting: Literal["none", "inverse"] = "none"
    on_rollback: Literal["keep", "restore", "reset"] = "restore"
    checkpoint_give_up_s: float = 3600.0
    workers_min: int | None = None
    gather_s: float = 2.0
    chunk_bytes: int = 512 * 1024
    max_snapshot_bytes: int = 1 << 30
    advertise: str = ""
    tls: Identity | None = None
    is_tls_mutual: bool = False
    is_insecure: bool = False

    def __post_init__(self) -> None:
        """Refuse what could only fail later.

        Raises:
            ValueError: naming the field, its value and the rule.
        """
        for name in (
            "batch",
            "credits_per_lane",
            "checkpoint_every",
            "checkpoint_keep",
            "max_workers",
            "heartbeat_s",
        ):
            self._require(name, getattr(self, name) > 0, "must be positive")
        for name in ("max_staleness", "workers_desired", "grace_s", "gather_s", "orphan_ttl_s"):
            self._require(name, (getattr(self, name) or 0) >= 0, "must not be negative")
        for name in ("port", "admin_port", "http_port"):
            self._require(name, 0 <= getattr(self, name) < 1 << 16, "must be 0 to 65535")
        is_safe = is_loopback(self.host) or self.tls is not None or self.is_insecure
        self._require("host", is_safe, "beyond loopback it needs tls, or is_insecure=True")
        self._require("mode", self.mode in ("sync", "async", "quorum"), "must be sync, async or quorum")
        self._require("lease_ttl_s", self.lease_ttl_s > 2 * self.heartbeat_s, "must exceed two heartbeats")
        fits_range = 0 <= (self.workers_min or 0) <= self.max_workers
        self._require("workers_min", fits_range, f"must be 0 to {self.max_workers} (max_workers)")
        self._require("quorum", 0 < self.quorum <= 1, "must be in (0, 1]")
        self._require("chunk_bytes", 1 << 10 <= self.chunk_bytes <= 2 << 20, "must be 1 KiB to 2 MiB")
        self._check_batch()

    def _check_batch(self) -> None:
        lanes = self.experiment.lanes
        if self.mode == "async":
            reachable = lanes * self.credits_per_lane
            self._require(
                "batch", self.batch <= reachable, f"{lanes} lanes may have {reachable} gradients outstanding"
            )
        else:
            self._require(
                "batch", self.batch == lanes, f"must be the number of lanes, {lanes}, in {self.mode} mode"
            )

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"LearnerSettings({name}={getattr(self, name)!r}): {rule}")

    @property
    def scale(self) -> Scale:
        """How many workers are wanted until the operator says otherwise."""
        bounds = None if self.workers_min is None else WorkersRange(self.workers_min, self.max_workers)
        return Scale(self.workers_desired, bounds)

    @property
    def buffer_items(self) -> int:
        """Gradients that may wait at the learner, over all workers."""
        return BUFFERED_BATCHES * self.batch
