"""Loads the theta of a run from its newest intact checkpoint, or an exported theta from a file."""

import dataclasses
import logging
import tomllib
from pathlib import Path

from learner.errors import CorruptCheckpointError
from learner.storage.checkpoint import load_theta
from protos.exit_codes import CheckpointError, RunNotFoundError
from service.config.run_config import RunConfig
from service.config.toml_document import read_tables
from service.run.checkpoints import checkpoints_of
from service.run.run_directory import RunDirectory, find_run
from unspool.config.numerics import Numerics
from unspool.experiment import Experiment
from unspool.exported import exported_bytes, load_exported
from unspool.serialization import SerializationError, digest
from unspool.types import Theta
from workers.numeric_environment import pin


@dataclasses.dataclass(frozen=True)
class Trained:
    """A theta and its origin.

    Attributes:
        name: of the run.
        outer_step: of theta.
        theta: the outer parameters.
        experiment_toml: the training tables of the run.
        directory: folder for its evaluation results.
        run: its directory; None for an exported theta.
    """

    name: str
    outer_step: int
    theta: Theta
    experiment_toml: str
    directory: Path
    run: RunDirectory | None

    @property
    def experiment(self) -> Experiment:
        """The experiment in which theta was meta-trained."""
        return Experiment.from_toml(self.experiment_toml)

    def to_bytes(self) -> bytes:
        """Return the file that `unspool.exported.load_exported` reads."""
        facts = {
            "run": self.name,
            "outer_step": str(self.outer_step),
            "theta_sha256": digest(self.theta),
        }
        return exported_bytes(self.theta, self.experiment_toml, facts)


def load_trained(run_or_file: str) -> Trained:
    """Return the theta of a run, or of an exported file.

    Raises:
        RunNotFoundError: `run_or_file` is neither.
        CheckpointError: the run has no checkpoint yet, or no intact one.
    """
    path = Path(run_or_file)
    return _from_file(path) if path.is_file() else _from_run(find_run(run_or_file))


def _from_run(run: RunDirectory) -> Trained:
    experiment_toml = RunConfig.from_tables(read_tables(run.config_path)).training_toml()
    shape = Experiment.from_toml(experiment_toml).theta_shape()
    for checkpoint in reversed(checkpoints_of(run)):
        try:
            theta = load_theta(Path(checkpoint.path), shape)
        except CorruptCheckpointError as error:
            logging.getLogger(__name__).warning("%s is skipped: %s", checkpoint.path, error)
            continue
        return Trained(run.name, checkpoint.outer_step, theta, experiment_toml, run.path, run)
    raise CheckpointError(f"run {run.path} has no checkpoint that could be read; let it run longer")


def _from_file(path: Path) -> Trained:
    try:
        exported = load_exported(path)
    except SerializationError as error:
        raise RunNotFoundError(f"{path} is neither a run nor an exported theta: {error}") from error
    pin(Numerics.from_tables(tomllib.loads(exported.experiment_toml)))
    facts = exported.facts
    name, outer_step = facts.get("run", path.stem), int(facts.get("outer_step", 0))
    return Trained(name, outer_step, exported.theta, exported.experiment_toml, path.parent, None)
