"""One supervisor to a run, and what it leaves there for `unspool status`: its name and its problems."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from learner.storage.files import try_lock
from protos.exit_codes import RunInUseError
from service.run.run_directory import RunDirectory, is_locked, lock_holder, write_atomically

_PROBES_S: Final = 0.5
_POLL_S: Final = 0.05


@contextlib.contextmanager
def supervising(run: RunDirectory, *, handover_s: float | None = None) -> Iterator[None]:
    """Hold the supervisor's lock of `run`; it ends with the process, however that ends.

    Args:
        run: whose.
        handover_s: how long to wait for another one, whose learner has been taken over; one that has not
            left then hangs, and is not waited for. By default another one is a reason to refuse.

    Raises:
        RunInUseError: there is another one.
    """
    path = _lock_path(run)
    file = _locked(path, _PROBES_S if handover_s is None else handover_s)
    if file is None and handover_s is not None:
        path.unlink(missing_ok=True)  # the process that holds it has been replaced
        file = _locked(path, _PROBES_S)
    if file is None:
        raise RunInUseError(_in_use(run))
    with file:
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        try:
            yield
        finally:
            run.supervisor_path.unlink(missing_ok=True)


def check_unsupervised(run: RunDirectory) -> None:
    """Refuse a run that has a supervisor.

    Raises:
        RunInUseError: naming it.
    """
    if is_supervised(run):
        raise RunInUseError(_in_use(run))


def is_supervised(run: RunDirectory) -> bool:
    """Whether a process supervises `run`."""
    return is_locked(_lock_path(run))


def note_supervision(
    run: RunDirectory, problems: Sequence[str], ends: Mapping[str, tuple[int, str]] | None = None
) -> None:
    """Write down that this process supervises `run`, its problems, and how workers ended: `Fleet.ends`."""
    workers = {name: {"ended": count, "last": last} for name, (count, last) in (ends or {}).items()}
    facts = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "problems": list(problems),
        "workers": workers,
    }
    with contextlib.suppress(OSError):  # a full disk must not end the supervision
        write_atomically(run.supervisor_path, json.dumps(facts))


def supervision_problems(run: RunDirectory) -> list[str]:
    """Return the problems that the supervisor of `run` reports, or that it has died."""
    try:
        facts = json.loads(run.supervisor_path.read_text(encoding="utf-8"))
        pid, host, problems = int(facts["pid"]), facts["host"], list(facts["problems"])
        ends = {name: (one["ended"], one["last"]) for name, one in facts.get("workers", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if not is_supervised(run):
        return [
            f"supervisor: process {pid} on {host} is gone, so no worker is started or ended; "
            f"launch {run.path} again to supervise it"
        ]
    return as_lines(problems, ends)


def as_lines(problems: Sequence[str], ends: Mapping[str, tuple[int, str]]) -> list[str]:
    """Return a supervisor's problems and how workers ended, as `unspool status` says it."""
    ended = [f"worker {name} ended {count}x, the last time {last}" for name, (count, last) in ends.items()]
    return [f"supervisor: {problem}" for problem in [*problems, *ended]]


def _lock_path(run: RunDirectory) -> Path:
    return run.path / "SUPERVISOR"


def _locked(path: Path, patience_s: float) -> IO[bytes] | None:
    """Return the locked file. Whoever only looks holds it for a moment, too."""
    give_up_at = time.monotonic() + patience_s
    while True:
        file = path.open("ab", buffering=0)
        if try_lock(file):
            return file
        file.close()
        if time.monotonic() > give_up_at:
            return None
        time.sleep(_POLL_S)


def _in_use(run: RunDirectory) -> str:
    holder = lock_holder(_lock_path(run))
    who = "it has not said who it is" if holder is None else f"pid {holder[0]} on {holder[1]}"
    return (
        f"{run.path} is in use: it has a supervisor ({who}); stop it with `unspool stop {run.path}`, or "
        "launch in another --run-dir"
    )
