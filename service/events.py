"""What happened in a run: from its learner while that lives, from the run directory afterwards."""

import json
import time
from collections.abc import Iterator

from protos.exit_codes import LearnerUnreachableError
from protos.unspool.v1.admin_pb2 import Event
from service.client import connected
from service.run_directory import RunDirectory

_LOOK_AGAIN_S = 1.0


def events_of(run: RunDirectory, follow: bool) -> Iterator[Event]:
    """Yield what happened, oldest first; with `follow` also what is yet to happen, until the learner ends."""
    seen = 0
    try:
        with connected(run) as admin:
            while True:
                events = admin.events(after=seen)
                yield from events
                seen = events[-1].number if events else seen
                if not events and not follow:
                    return
                time.sleep(0 if events else _LOOK_AGAIN_S)
    except LearnerUnreachableError:
        yield from (event for event in _events_in_log(run) if event.number > seen)


def _events_in_log(run: RunDirectory) -> Iterator[Event]:
    try:
        log = run.log_path("events").with_suffix(".jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in log.splitlines():
        try:
            yield Event(**json.loads(line))
        except (ValueError, TypeError):
            continue  # cut off by a crash
