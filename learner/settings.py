"""The settings of a learner process."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from learner.listening import ListenTable, TlsTable, check_exposure
from learner.tables import AggregationTable, CheckpointTable, LivenessTable, WorkersTable
from protos.rpc.access import Tokens

if TYPE_CHECKING:
    from unspool.experiment import Experiment  # imports JAX

BUFFERED_BATCHES: Final = 5
"""The capacity of the learner's buffer, in batches."""


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """The settings of a learner.

    Attributes:
        run_dir: the run directory, which must exist.
        run_id: the run's name.
        experiment: the experiment, which determines theta.
        experiment_toml: the experiment as text, from which workers build their lanes.
        config_sha256: the digest of the part of the configuration that determines theta. A checkpoint with
            another digest is not resumed.
        tokens: the secrets that callers must present, one for each role.
        aggregation, workers, listen, tls, checkpoint, liveness: tables of the configuration; `listen` is
            `[learner]`.
        gather_s: seconds to wait for the desired workers before leasing the first lanes.
        chunk_bytes: the maximum number of bytes of a body in one message.
        max_snapshot_bytes: the maximum size of a lane snapshot.
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
        """Check the rules that involve more than one table.

        Raises:
            ConfigError: a key of the configuration breaks a rule.
            ValueError: another field breaks a rule; the error contains the field, its value and the rule.
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
        """The capacity of the learner's buffer, in estimates."""
        return BUFFERED_BATCHES * self.aggregation.batch_size
