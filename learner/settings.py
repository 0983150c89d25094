"""Everything a learner process is started with."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from learner.listening import ListenTable, TlsTable, check_exposure
from learner.tables import AggregationTable, CheckpointTable, LivenessTable, WorkersTable
from protos.rpc.access import Tokens

if TYPE_CHECKING:
    from unspool.experiment import Experiment  # imports JAX

BUFFERED_BATCHES: Final = 5
"""Updates whose gradients may wait at the learner."""


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """A learner's settings; `serve` takes nothing else.

    Attributes:
        run_dir: the run directory, which exists.
        run_id: the run's name.
        experiment: what decides theta.
        experiment_toml: the same as text; workers build their lanes from it.
        config_sha256: digest of the part of the configuration that decides theta. A checkpoint of another one
            is not resumed.
        tokens: what callers must present, each role its own.
        aggregation: the configuration's table of that name, as the five below.
        workers: how many workers there are.
        listen: the table `[learner]`.
        tls: whether connections are encrypted, and with which files.
        checkpoint: when theta is saved.
        liveness: when a silent worker counts as lost.
        gather_s: how long the first lanes wait, so that `workers.count` workers share them from the start.
        chunk_bytes: largest piece of a body in one message.
        max_snapshot_bytes: largest lane snapshot accepted.
    """

    run_dir: Path
    run_id: str
    experiment: "Experiment"
    experiment_toml: str
    config_sha256: str
    tokens: Tokens
    aggregation: AggregationTable
    workers: WorkersTable = dataclasses.field(default_factory=WorkersTable)
    listen: ListenTable = dataclasses.field(default_factory=ListenTable)
    tls: TlsTable = dataclasses.field(default_factory=TlsTable)
    checkpoint: CheckpointTable = dataclasses.field(default_factory=CheckpointTable)
    liveness: LivenessTable = dataclasses.field(default_factory=LivenessTable)
    gather_s: float = 2.0
    chunk_bytes: int = 512 * 1024
    max_snapshot_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        """Refuse what the tables cannot see each for itself.

        Raises:
            ConfigError: a key of the configuration.
            ValueError: another field; naming it, its value and the rule.
        """
        check_exposure(self.listen, self.tls)
        lanes = self.experiment.lanes
        rules = (
            ("aggregation", self.aggregation.lanes == lanes, f"must have the experiment's {lanes} lanes"),
            ("gather_s", self.gather_s >= 0, "must not be negative"),
            ("chunk_bytes", 1 << 10 <= self.chunk_bytes <= 2 << 20, "must be 1 KiB to 2 MiB"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise ValueError(f"LearnerSettings({name}={getattr(self, name)!r}): {rule}")

    @property
    def buffer_items(self) -> int:
        """Gradients that may wait at the learner, over all workers."""
        return BUFFERED_BATCHES * self.aggregation.batch_size
