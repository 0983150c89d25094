"""Reports of the workers' supervisor: workers without a session, and the reasons."""

from collections.abc import Callable
from typing import Final

from protos.unspool.v1.admin_pb2 import AbsentWorker, SupervisionNote

FRESH_S: Final = 60.0
"""Older notes are ignored; a running supervisor repeats its note far more often."""

_PROBLEMS: Final = 64
_WORKERS: Final = 1024
_CHARACTERS: Final = 2000


class Supervision:
    """The last note of a supervisor, until it is `FRESH_S` old."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._note = SupervisionNote()
        self._noted_s = 0.0

    def take(self, note: SupervisionNote) -> list[str]:
        """Replace the note; return its new problems."""
        before = self.problems
        self._note, self._noted_s = note, self._clock()
        return [problem for problem in self.problems if problem not in before]

    @property
    def problems(self) -> list[str]:
        """The problems in the note, truncated."""
        return [problem[:_CHARACTERS] for problem in self._fresh.problems[:_PROBLEMS]]

    @property
    def absent_workers(self) -> list[AbsentWorker]:
        """The desired workers that have no session."""
        since_s = self._clock() - self._noted_s
        return [
            AbsentWorker(name=one.name[:64], state=one.state[:_CHARACTERS], age_s=one.age_s + since_s)
            for one in self._fresh.absent_workers[:_WORKERS]
        ]

    def lack_of_room(self, workers: int) -> str:
        """Return why `workers` do not fit; empty if they do or if this is unknown."""
        note = self._fresh
        if not note.HasField("most_workers") or workers <= note.most_workers:
            return ""
        return f"at most {note.most_workers} fit: {note.most_workers_reason[:_CHARACTERS]}"

    @property
    def _fresh(self) -> SupervisionNote:
        is_fresh = self._clock() - self._noted_s <= FRESH_S
        return self._note if is_fresh else SupervisionNote()
