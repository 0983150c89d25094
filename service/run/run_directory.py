"""The directory of a run: its location, its files, and their permissions."""

import contextlib
import dataclasses
import itertools
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any, Final

from learner.storage.files import write_durably
from protos.exit_codes import LearnerUnreachableError, RunNotFoundError
from protos.rpc.roles import Role
from service.system_errors import naming
from unspool.config.config_error import did_you_mean

RUNS = Path("runs")
"""Folder of runs that are referred to by name, relative to the working directory."""


_OLD_NAMES: Final = {"epoch": "term", "refusals": "access_denials"}


@dataclasses.dataclass(frozen=True)
class Endpoints:
    """Addresses of a run's learner, which stores them as soon as it listens.

    Attributes:
        run: the run's name.
        pid: of the learner.
        term: number of the learner process in this run, from 1.
        learner: host:port of the data plane.
        admin: host:port of the admin service.
        http: host:port of the status page, or its URL if it is encrypted.
        tls: whether connections are encrypted.
    """

    run: str
    pid: int
    term: int
    learner: str
    admin: str
    http: str
    tls: bool = False

    @property
    def page(self) -> str:
        """The status page's URL."""
        return page_url(self.http)


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        name = self.path.resolve().name
        return os.fsencode(name).decode(errors="replace")  # a path may be undecodable

    @property
    def config_path(self) -> Path:
        """The configuration with every default and override written out."""
        return self.path / "config.toml"

    def token_path(self, role: Role) -> Path:
        """Return the path of the token that calls to the learner present, one for each role."""
        return self.path / ("token" if role is Role.ADMIN else f"token-{role}")

    @property
    def supervisor_path(self) -> Path:
        """Path of the supervisor's report."""
        return self.path / "supervisor.json"

    @property
    def checkpoints_path(self) -> Path:
        """The folder of theta's checkpoints."""
        return self.path / "checkpoints"

    def log_path(self, process: str) -> Path:
        """Return the path of a process's log."""
        return self.path / "logs" / f"{process}.log"

    @property
    def checkpointed_step(self) -> int:
        """Outer step of the newest checkpoint, by the names of the files; 0 if there is none."""
        numbers = (path.stem.partition("-")[2] for path in self.checkpoints_path.glob("step-*.safetensors"))
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    @property
    def exists(self) -> bool:
        """Whether this directory contains a run."""
        return self.config_path.is_file()

    def create(self, config_toml: str) -> None:
        """Create the directory, or reuse an existing one, with this configuration and tokens."""
        (self.path / "logs").mkdir(parents=True, exist_ok=True)
        for path in map(self.token_path, Role):
            if not path.exists():
                write_atomically(path, secrets.token_urlsafe(32) + "\n", mode=0o600)
        write_atomically(self.config_path, config_toml)

    def accept_checkpoints_of(self, config_sha256: str) -> None:
        """Allow resuming from this run's checkpoints although another configuration made them."""
        if not self._accepted_path.exists():
            write_atomically(self._accepted_path, config_sha256 + "\n")

    def accepted_sha256(self) -> str | None:
        """Return the config digest of the checkpoints if it differs from the configuration's, else None."""
        try:
            return self._accepted_path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None

    @property
    def _accepted_path(self) -> Path:
        return self.path / "accepted_config_sha256"

    def token(self, role: Role = Role.ADMIN) -> str:
        """Return the run's token for a role.

        Raises:
            RunNotFoundError: it cannot be read.
        """
        return read_token(self.token_path(role))

    def endpoints(self) -> Endpoints:
        """Return the learner's endpoints, which remain after a crash.

        Raises:
            LearnerUnreachableError: the learner does not listen, or the file cannot be read.
        """
        path = self.path / "endpoints.json"
        try:
            fields = with_new_names(json.loads(path.read_text(encoding="utf-8")))
            known = {field.name for field in dataclasses.fields(Endpoints)}
            return Endpoints(**{name: value for name, value in fields.items() if name in known})
        except FileNotFoundError as error:
            raise LearnerUnreachableError(f"run {self.path}: its learner does not listen") from error
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise LearnerUnreachableError(f"{path} cannot be read ({error})") from error


def with_new_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file of a run under today's names; older programs used others."""
    return {_OLD_NAMES.get(name, name): value for name, value in fields.items()}


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        RunNotFoundError: the file cannot be read, or is empty.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise RunNotFoundError(f"token file {path} cannot be read ({reason})") from error
    if not token:
        raise RunNotFoundError(f"token file {path} is empty")
    return token


def page_url(http: str) -> str:
    """Return the URL of a status page from its endpoint."""
    return f"{http}/" if "://" in http else f"http://{http}/"


def find_run(run: str | None) -> RunDirectory:
    """Return the run called `run`: a directory, a name below `runs`, or by default the newest there.

    Raises:
        RunNotFoundError: there is no such run.
    """
    known = known_runs()
    if run is None:
        if not known:
            raise RunNotFoundError(f"there is no run in {RUNS.resolve()}; name a run directory")
        return max(known, key=lambda found: found.config_path.stat().st_mtime)
    found = run_called(Path(run))
    if found is not None:
        return found
    remedy = did_you_mean(run, [found.name for found in known])
    raise RunNotFoundError(f"{run} is not a run: neither it nor {RUNS / run} has a config.toml ({remedy})")


def run_called(path: Path) -> RunDirectory | None:
    """Return the run at `path`, or the one of that name below `runs`; None if there is none."""
    if path.is_file():
        return None
    found = (RunDirectory(place) for place in (path, RUNS / path))
    return next((run for run in found if run.exists), None)


def known_runs() -> list[RunDirectory]:
    """Return the runs below `runs`."""
    return [RunDirectory(path.parent) for path in sorted(RUNS.glob("*/config.toml"))]


def claim_free_directory(name: str) -> RunDirectory:
    """Create the first of `runs/<name>-1`, `-2`, ... that does not exist, and return it."""
    RUNS.mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = RUNS / f"{name}-{number}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return RunDirectory(path)
    raise AssertionError("unreachable: itertools.count is infinite")


def make_writable(folder: Path) -> None:
    """Create a folder and check that it is writable, before computing results to be written to it.

    Raises:
        OSError: the folder is not writable; the error names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder), tempfile.TemporaryFile(dir=folder):
        return


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a small file so that a reader sees either all of it or the previous contents.

    Raises:
        OSError: the file cannot be written; the error names `path`, and not the temporary file beside it.
    """
    with naming(path):
        write_durably(path, text.encode(), writer=f"{os.getpid()}", mode=mode)
