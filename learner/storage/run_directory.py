"""Small files of a run directory: where the learner listens, its last ports, status and scale."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from learner.scale import Scale
from learner.storage.files import write_durably


class Ports(NamedTuple):
    """Where the learner's three servers listen; 0 is any port that is free."""

    learner: int = 0
    admin: int = 0
    http: int = 0


class LearnerDirectory:
    """The files of a run directory that belong to no other part of the learner."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.lanes = path / "lanes"
        self.metrics = path / "metrics"
        self.events = path / "logs" / "events.jsonl"
        self.endpoints = path / "endpoints.json"
        self.status = path / "status.json"
        self._ports = path / "ports.json"
        self._scale = path / "workers.json"

    def clear_endpoints(self) -> None:
        """Remove the endpoints: a learner that was killed has left its own."""
        self.endpoints.unlink(missing_ok=True)

    def write_endpoints(self, endpoints: Mapping[str, Any]) -> None:
        """Write where the learner listens, once it does."""
        write_durably(self.endpoints, json.dumps(endpoints).encode())

    def last_ports(self) -> Ports:
        """Return where the last learner process listened: its workers look for a learner there."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Ports(**json.loads(self._ports.read_text()))
        return Ports()

    def remember_ports(self, ports: Ports) -> None:
        """Let the next learner process listen at the same ports."""
        write_durably(self._ports, json.dumps(ports._asdict()).encode())

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Keep the status, for when no learner runs that could answer."""
        write_durably(self.status, json.dumps(status).encode())

    def remember_scale(self, configured: Scale, wanted: Scale) -> None:
        """Let a scale command outlive the learner."""
        write_durably(self._scale, json.dumps({"configured": configured, "wanted": wanted}).encode())

    def scale(self, configured: Scale) -> Scale:
        """Return how many workers are wanted: as last commanded, unless the configuration changed since."""
        if not self._scale.exists():
            return configured
        remembered = json.loads(self._scale.read_text())
        if Scale.of(remembered.get("configured")) != configured:
            return configured
        return Scale.of(remembered.get("wanted")) or configured
