"""The run directory: who owns it, which life of the learner this is, and where the learner listens."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from learner.durable_file import write_durably
from learner.errors import RunLockedError


class RunDirectory:
    """The files of a run directory that belong to no other part of the learner."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.lanes = path / "lanes"
        self.metrics = path / "metrics"
        self.events = path / "logs" / "events.jsonl"
        self.endpoints = path / "endpoints.json"
        self.status = path / "status.json"
        self._epoch = path / "epoch"
        self._scale = path / "workers.json"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for one learner. The lock ends with the process, however that ends.

        Raises:
            RunLockedError: naming the process that holds it.
        """
        # Not truncated before the lock is held: the content is the holder's.
        with (self.path / "LOCK").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunLockedError(
                    f"{self.path}: another learner holds this run directory ({_holder(file)}); "
                    "stop it, or use another directory"
                ) from error
            file.truncate(0)
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
            file.flush()
            yield

    def begin_epoch(self) -> int:
        """Count this life of the learner; returns its number, from 1."""
        epoch = 1 + (int(self._epoch.read_text()) if self._epoch.exists() else 0)
        write_durably(self._epoch, f"{epoch}\n".encode())
        return epoch

    def clear_endpoints(self) -> None:
        """Say that nobody listens: the last learner may have had no time to."""
        self.endpoints.unlink(missing_ok=True)

    def write_endpoints(self, endpoints: Mapping[str, Any]) -> None:
        """Say where the learner listens, once it does."""
        write_durably(self.endpoints, json.dumps(endpoints).encode())

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Leave the status behind, for when nobody is there to ask."""
        write_durably(self.status, json.dumps(status).encode())

    def remember_scale(self, configured: int, desired: int) -> None:
        """Let a scale command outlive the learner."""
        write_durably(self._scale, json.dumps({"configured": configured, "desired": desired}).encode())

    def workers_desired(self, configured: int) -> int:
        """Return how many workers are wanted: as last commanded, unless the configuration changed since."""
        if not self._scale.exists():
            return configured
        remembered: dict[str, int] = json.loads(self._scale.read_text())
        return remembered["desired"] if remembered["configured"] == configured else configured


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"pid {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said who it is"
