"""The configuration of a run: what is meta-trained (training tables) and how it is run (control tables)."""

import dataclasses
import hashlib
import types
from collections.abc import Mapping
from typing import Any, Self

from learner.listening import ListenTable, TlsTable, check_exposure
from learner.tables import AggregationTable, CheckpointTable, LivenessTable, WorkersTable
from service.config.toml_document import Tables, write_tables
from unspool.config.components import called, checked
from unspool.config.config_error import ConfigError, Problem, ProblemList, did_you_mean
from unspool.config.numerics import DIAGNOSTIC, Numerics
from unspool.config.toml_values import as_toml, parameters


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole configuration.

    Attributes:
        experiment: the tables that `unspool.experiment.Experiment` is built from, as written.
        aggregation: the `[aggregation]` table; the other attributes are tables too.
    """

    experiment: Mapping[str, Any]
    aggregation: AggregationTable
    workers: WorkersTable
    learner: ListenTable
    tls: TlsTable
    checkpoint: CheckpointTable
    liveness: LivenessTable
    numerics: Numerics

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> Self:
        """Build a configuration, without checking the components that it names.

        Raises:
            ConfigError: with every problem of the control tables.
        """
        problems = ProblemList()
        for name in tables.keys() - _EXPERIMENT - _SECTIONS.keys():
            remedy = did_you_mean(name, _EXPERIMENT | _SECTIONS.keys())
            problems.add(
                Problem(name, as_toml(tables[name]), "is not a key of a run's configuration", remedy)
            )
        sections: dict[str, Any] = {}
        for name, section in _SECTIONS.items():
            with problems.gathered():
                sections[name] = _read_section(tables.get(name, {}), name, section)
        problems.raise_if_any()
        for name in ("aggregation", "workers", "tls"):
            sections[name] = sections[name].settled()
        check_exposure(sections["learner"], sections["tls"])
        return cls({name: tables[name] for name in tables.keys() & _EXPERIMENT}, **sections)

    def to_tables(self) -> Tables:
        """Return the configuration as tables, with every default written out except None."""
        sections = {name: _written_out(getattr(self, name)) for name in _SECTIONS}
        return {**self.experiment, **sections}

    def training_tables(self) -> Tables:
        """Return the part of the tables that theta depends on."""
        workers: Tables = {"cpu_threads": self.workers.cpu_threads, "platform": self.workers.platform}
        if self.workers.device_count > 1:
            # Omit the default, so that runs from before this key existed keep their digest.
            workers["devices"] = self.workers.device_count
        deciding = {"aggregation": self.aggregation.deciding(), "workers": workers}
        numerics = self.numerics.deciding()
        return {**self.experiment, **deciding, **({"numerics": numerics} if numerics else {})}

    def training_toml(self) -> str:
        """Return `training_tables` in canonical form."""
        return write_tables(self.training_tables())

    def lasting_tables(self) -> Tables:
        """Return the tables fixed for a run: `training_tables` without `outer_steps` and diagnostics."""
        tables = {name: table for name, table in self.training_tables().items() if name != "outer_steps"}
        numerics = {key: value for key, value in tables.pop("numerics", {}).items() if key not in DIAGNOSTIC}
        return tables | ({"numerics": numerics} if numerics else {})

    def training_sha256(self) -> str:
        """Return the digest of `lasting_tables`, which identifies what a run trains."""
        return hashlib.sha256(write_tables(self.lasting_tables()).encode()).hexdigest()


_SECTIONS: Mapping[str, Any] = types.MappingProxyType(
    {field.name: field.type for field in dataclasses.fields(RunConfig) if field.name != "experiment"}
)
_EXPERIMENT = {"seed", "outer_steps", "learned_optimizer", "outer_optimizer", "estimators"}


def _read_section(table: Any, name: str, section: type) -> Any:
    if not isinstance(table, Mapping):
        raise ConfigError(Problem(name, as_toml(table), f"must be a table, [{name}]"))
    return called(section, checked(table, parameters(section), name, f"[{name}]"), table, name)


def _written_out(section: Any) -> Tables:
    return {key: value for key, value in dataclasses.asdict(section).items() if value is not None}
