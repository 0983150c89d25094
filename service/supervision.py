"""What a supervisor leaves in the run directory for `unspool status`: that it is there, and its problems."""

import contextlib
import json
import os
import socket
from collections.abc import Sequence

from service.run_directory import RunDirectory, write_atomically


def note_supervision(run: RunDirectory, problems: Sequence[str]) -> None:
    """Write down that this process supervises `run`, and its problems."""
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "problems": list(problems)}
    with contextlib.suppress(OSError):  # a full disk must not end the supervision
        write_atomically(run.supervisor_path, json.dumps(facts))


def end_supervision(run: RunDirectory) -> None:
    """Take the note back."""
    run.supervisor_path.unlink(missing_ok=True)


def supervision_problems(run: RunDirectory) -> list[str]:
    """Return what the supervisor of `run` cannot mend, or that it has died; nothing if there is none."""
    try:
        facts = json.loads(run.supervisor_path.read_text())
        pid, host, problems = int(facts["pid"]), facts["host"], list(facts["problems"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if host == socket.gethostname() and not _is_alive(pid):
        return [
            f"supervisor: process {pid} is gone, nobody starts or ends workers; "
            f"stop the run and launch {run.path} again"
        ]
    return [f"supervisor: {problem}" for problem in problems]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
