"""What the supervisor of the workers reports: which have no session, and what keeps them from it."""

from collections.abc import Callable
from typing import Final

from protos.unspool.v1.admin_pb2 import AbsentWorker, SupervisionNote

FRESH_S: Final = 60.0
"""An older note counts no longer: supervisors repeat theirs far more often."""

_PROBLEMS: Final = 64
_WORKERS: Final = 1024
_CHARACTERS: Final = 2000


class Supervision:
    """The last note of a supervisor, for as long as it counts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._note = SupervisionNote()
        self._noted_s = 0.0

    def take(self, note: SupervisionNote) -> list[str]:
        """Keep a note in place of the last one; returns the problems that are new."""
        before = self.problems
        self._note, self._noted_s = note, self._clock()
        return [problem for problem in self.problems if problem not in before]

    @property
    def problems(self) -> list[str]:
        """What a person should know."""
        return [problem[:_CHARACTERS] for problem in self._fresh.problems[:_PROBLEMS]]

    @property
    def absent_workers(self) -> list[AbsentWorker]:
        """Workers that are wanted and have no session."""
        since_s = self._clock() - self._noted_s
        return [
            AbsentWorker(name=one.name[:64], state=one.state[:_CHARACTERS], age_s=one.age_s + since_s)
            for one in self._fresh.absent_workers[:_WORKERS]
        ]

    def lack_of_room(self, workers: int) -> str:
        """Say why there cannot be so many workers; empty if there can, or it is not known."""
        note = self._fresh
        if not note.HasField("most_workers") or workers <= note.most_workers:
            return ""
        return f"at most {note.most_workers} fit: {note.most_workers_reason[:_CHARACTERS]}"

    @property
    def _fresh(self) -> SupervisionNote:
        is_fresh = self._clock() - self._noted_s <= FRESH_S
        return self._note if is_fresh else SupervisionNote()
