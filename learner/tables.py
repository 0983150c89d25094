"""The operational tables of a configuration: type, default and rules of each key.

The configuration reader, the learner and the workers' supervisor share these classes. The module does not
import JAX, because a supervisor that did would occupy devices that its workers need.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from learner.scale import Scale, WorkerRange
from unspool.config.config_error import ConfigError, Problem
from unspool.config.toml_values import as_toml


def require(section: str, table: Any, *rules: tuple[str, bool, str]) -> None:
    """Raise a `ConfigError` with every rule `(key, holds, text)` of `table` that does not hold."""
    broken = [
        Problem(f"{section}.{key}", as_toml(getattr(table, key)), rule)
        for key, holds, rule in rules
        if not holds
    ]
    if broken:
        raise ConfigError(*broken)


@dataclasses.dataclass(frozen=True)
class AggregationTable:
    """The aggregation of gradients to updates of theta.

    Attributes:
        lanes: the number of logical gradient estimators, which define the batch independently of workers.
        mode: "sync" waits for every lane and is reproducible; "async" applies gradients as they arrive;
            "quorum" waits for a share of the lanes, and for a limited time for the others.
        batch: gradients per update; None for the number of lanes, which only "async" may change.
        max_staleness: the maximum number of updates that a gradient may be behind; None for the mode's
            default.
        credits: the maximum number of unapplied gradients per lane; None for the mode's default.
        quorum: the share of the lanes that "quorum" waits for; None for its default.
        grace_s: seconds that "quorum" then waits for the others; None for the usual arrival times.
        staleness_weighting: "inverse" multiplies the weight of a gradient s updates behind by 1 / (1 + s).
        on_rollback: the lane states after the learner was rolled back to a checkpoint: "keep" continues from
            those in workers' memories, "restore" from those in the checkpoint, "reset" restarts the unrolls.
            "sync" always restores.
    """

    lanes: int
    mode: Literal["sync", "async", "quorum"] = "sync"
    batch: int | None = None
    max_staleness: int | None = None
    credits: int | None = None
    quorum: float | None = None
    grace_s: float | None = None
    staleness_weighting: Literal["none", "inverse"] = "none"
    on_rollback: Literal["keep", "restore", "reset"] | None = None

    def __post_init__(self) -> None:
        is_sync, is_quorum = self.mode == "sync", self.mode == "quorum"
        is_unweighted = self.staleness_weighting == "none"
        takes_all = self.mode == "async" or self.batch_size == self.lanes
        reachable = self.lanes * self.credits_per_lane
        require(
            "aggregation",
            self,
            ("lanes", 1 <= self.lanes <= 4096, "must be from 1 to 4096"),
            ("batch", self.batch_size >= 1, "must be at least 1"),
            ("batch", takes_all, f"must equal lanes in {self.mode}"),
            ("batch", self.batch_size <= reachable, f"must not exceed lanes x credits ({reachable})"),
            ("max_staleness", self.staleness_window >= 0, "must not be negative"),
            ("max_staleness", not is_sync or self.staleness_window == 0, "must be 0 in sync"),
            ("credits", self.credits_per_lane >= 1, "must be at least 1"),
            ("quorum", 0 < self.share_needed <= 1, "must be above 0, at most 1"),
            ("quorum", is_quorum or self.share_needed == 1, f"has no meaning in {self.mode}"),
            ("grace_s", (self.grace_s or 0.0) >= 0, "must not be negative"),
            ("grace_s", is_quorum or not self.grace_s, f"has no meaning in {self.mode}"),
            ("staleness_weighting", not is_sync or is_unweighted, "has no meaning in sync"),
            ("on_rollback", not is_sync or self.lanes_after_rollback == "restore", "must be restore in sync"),
        )

    @property
    def batch_size(self) -> int:
        """The number of gradients per update."""
        return self.lanes if self.batch is None else self.batch

    @property
    def staleness_window(self) -> int:
        """The maximum number of updates that a gradient may be behind."""
        by_default = {"sync": 0, "quorum": 1, "async": 5}[self.mode]
        return by_default if self.max_staleness is None else self.max_staleness

    @property
    def credits_per_lane(self) -> int:
        """The maximum number of unapplied gradients per lane."""
        by_default = 1 if self.mode == "sync" else 2
        return by_default if self.credits is None else self.credits

    @property
    def share_needed(self) -> float:
        """The minimum share of the lanes in an update."""
        by_default = 0.75 if self.mode == "quorum" else 1.0
        return by_default if self.quorum is None else self.quorum

    @property
    def lanes_after_rollback(self) -> Literal["keep", "restore", "reset"]:
        """The source of lane states after a rollback to a checkpoint."""
        by_default: Literal["keep", "restore"] = "restore" if self.mode == "sync" else "keep"
        return self.on_rollback or by_default

    def settled(self) -> "AggregationTable":
        """Return a copy with the mode's defaults in place of None."""
        return dataclasses.replace(
            self,
            batch=self.batch_size,
            max_staleness=self.staleness_window,
            credits=self.credits_per_lane,
            quorum=self.share_needed,
            grace_s=self.grace_s if self.mode == "quorum" else 0.0,
            on_rollback=self.lanes_after_rollback,
        )

    def deciding(self) -> dict[str, Any]:
        """Return the keys that theta depends on, as the configuration's digest contains them.

        Keys that did not exist when older runs computed their digests are omitted at their defaults.
        """
        keys = dataclasses.asdict(self.settled())
        left_out = {
            "grace_s": None,
            "staleness_weighting": "none",
            "on_rollback": AggregationTable(self.lanes, self.mode).lanes_after_rollback,
        }
        return {key: value for key, value in keys.items() if key not in left_out or value != left_out[key]}


@dataclasses.dataclass(frozen=True)
class WorkersTable:
    """The worker processes.

    Attributes:
        count: the number at the start; `unspool scale` changes it during the run.
        min_count: if set, the run scales itself between min_count and max_count.
        max_count: the maximum number at any time.
        num_cpus: the CPUs that each requests from Ray.
        num_gpus: the GPUs that each requests from Ray; may be a fraction.
        resources: the custom resources that each requests from Ray.
        cpu_threads: the cores that XLA uses in each process. Results on a CPU depend on it, bit for bit.
        platform: the platform of JAX; None for "cuda" if GPUs are requested, else "cpu".
        devices: the devices that each splits a lane's tasks across; None for its number of GPUs, at least 1.
    """

    count: int = 2
    min_count: int | None = None
    max_count: int = 256
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cpu_threads: int = 1
    platform: Literal["cpu", "cuda", "rocm", "tpu"] | None = None
    devices: int | None = None

    def __post_init__(self) -> None:
        fits_count = 0 <= (self.min_count or 0) <= self.count
        # Ray hides the GPUs that were not requested.
        fits_gpus = self.platform == "cpu" or not 0 < math.ceil(self.num_gpus) < self.device_count
        require(
            "workers",
            self,
            ("max_count", 1 <= self.max_count <= 4096, "must be from 1 to 4096"),
            ("count", self.count >= 0, "must not be negative"),
            ("count", self.count <= self.max_count, f"must not exceed max_count ({self.max_count})"),
            ("min_count", self.min_count is None or fits_count, f"must be from 0 to count ({self.count})"),
            ("num_cpus", self.num_cpus >= 0, "must not be negative"),
            ("num_gpus", self.num_gpus >= 0, "must not be negative"),
            ("resources", _are_amounts(self.resources), "must be numbers, none of them negative"),
            ("cpu_threads", 1 <= self.cpu_threads <= 1024, "must be from 1 to 1024"),
            ("devices", 1 <= self.device_count <= 1024, "must be from 1 to 1024"),
            ("devices", fits_gpus, f"must not exceed num_gpus ({self.num_gpus:g})"),
        )

    @property
    def device_count(self) -> int:
        """The number of devices that each worker splits a lane's tasks across."""
        on_gpus = self.platform != "cpu" and self.num_gpus >= 1
        by_default = int(self.num_gpus) if on_gpus else 1
        return by_default if self.devices is None else self.devices

    @property
    def scale(self) -> Scale:
        """The initial number of workers, and the range for autoscaling."""
        bounds = None if self.min_count is None else WorkerRange(self.min_count, self.max_count)
        return Scale(self.count, bounds)

    def settled(self) -> "WorkersTable":
        """Return a copy with defaults in place of None for the platform and the devices."""
        platform = self.platform or ("cpu" if self.num_gpus == 0 else "cuda")
        return dataclasses.replace(self, platform=platform, devices=self.device_count)


@dataclasses.dataclass(frozen=True)
class CheckpointTable:
    """The schedule of checkpoints, with theta and every lane's unroll state.

    Attributes:
        every: the number of outer steps between checkpoints.
        keep: the number of newest checkpoints that are kept.
        give_up_s: seconds for which training continues if none can be written, as on a full disk.
    """

    every: int = 20
    keep: int = 3
    give_up_s: float = 3600.0

    def __post_init__(self) -> None:
        require(
            "checkpoint",
            self,
            ("every", self.every >= 1, "must be at least 1"),
            ("keep", self.keep >= 1, "must be at least 1"),
            ("give_up_s", self.give_up_s > 0, "must be above 0"),
        )


@dataclasses.dataclass(frozen=True)
class LivenessTable:
    """The detection of lost workers and learners.

    Attributes:
        heartbeat_s: seconds between heartbeats.
        patience: a worker's lanes are reassigned after `2 * patience` missed heartbeats.
        orphan_ttl_s: seconds after which a worker without a learner exits.
    """

    heartbeat_s: float = 5.0
    patience: int = 3
    orphan_ttl_s: float = 1800.0

    def __post_init__(self) -> None:
        require(
            "liveness",
            self,
            ("heartbeat_s", 0 < self.heartbeat_s <= 3600, "must be above 0, at most 3600"),
            ("patience", self.patience >= 2, "must be at least 2: a lease outlives two missed heartbeats"),
            ("orphan_ttl_s", self.orphan_ttl_s > 0, "must be above 0"),
        )

    @property
    def lease_ttl_s(self) -> float:
        """Seconds of silence after which a worker's lanes are reassigned."""
        return 2 * self.patience * self.heartbeat_s


def _are_amounts(resources: Mapping[str, Any]) -> bool:
    return all(type(amount) in (int, float) and amount >= 0 for amount in resources.values())
