"""Small files of a run directory: the learner's endpoints, last ports, status and scale."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from learner.scale import Scale
from learner.storage.files import write_durably


class Ports(NamedTuple):
    """The ports of the learner's three servers; 0 stands for any free port."""

    learner: int = 0
    admin: int = 0
    http: int = 0


class LearnerDirectory:
    """The paths in a run directory, and the small files that no other part of the learner manages."""

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
        """Remove the endpoints; a killed learner leaves its file behind."""
        self.endpoints.unlink(missing_ok=True)

    def write_endpoints(self, endpoints: Mapping[str, Any]) -> None:
        """Write the endpoints, once the learner listens."""
        write_durably(self.endpoints, json.dumps(endpoints).encode())

    def last_ports(self) -> Ports:
        """Return the ports of the last learner process, where its workers try to reconnect."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Ports(**json.loads(self._ports.read_text()))
        return Ports()

    def remember_ports(self, ports: Ports) -> None:
        """Save the ports for the next learner process."""
        write_durably(self._ports, json.dumps(ports._asdict()).encode())

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Save the status for queries while no learner runs."""
        write_durably(self.status, json.dumps(status).encode())

    def remember_scale(self, configured: Scale, wanted: Scale) -> None:
        """Save a scale command across restarts of the learner."""
        write_durably(self._scale, json.dumps({"configured": configured, "wanted": wanted}).encode())

    def scale(self, configured: Scale) -> Scale:
        """Return the scale of the last command; `configured` if there is none, or if it has changed since."""
        if not self._scale.exists():
            return configured
        remembered = json.loads(self._scale.read_text())
        if Scale.of(remembered.get("configured")) != configured:
            return configured
        return Scale.of(remembered.get("wanted")) or configured
