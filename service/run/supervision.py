"""The lock that allows one supervisor per run, and the supervisor's report for `unspool status`."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from learner.storage.files import is_locked, lock_holder, try_lock
from protos.exit_codes import RunInUseError
from service.run.run_directory import RunDirectory, write_atomically

_PROBES_S: Final = 0.5
_POLL_S: Final = 0.05


@contextlib.contextmanager
def supervising(run: RunDirectory, *, handover_s: float | None = None) -> Iterator[None]:
    """Hold the supervisor's lock of `run`; the lock is released when the process ends, however it ends.

    Args:
        run: the run to supervise.
        handover_s: how long to wait for another supervisor, whose learner has been taken over, before its
            lock is replaced because it hangs. By default another supervisor is an error.

    Raises:
        RunInUseError: another supervisor holds the lock.
    """
    path = _lock_path(run)
    file = _locked(path, _PROBES_S if handover_s is None else handover_s)
    if file is None and handover_s is not None:
        path.unlink(missing_ok=True)  # the process that holds the lock has been replaced
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
    """Reject a run that has a supervisor.

    Raises:
        RunInUseError: it has one; the message names it.
    """
    if is_supervised(run):
        raise RunInUseError(_in_use(run))


def is_supervised(run: RunDirectory) -> bool:
    """Whether a process supervises `run`."""
    return is_locked(_lock_path(run))


def note_supervision(
    run: RunDirectory, problems: Sequence[str], ends: Mapping[str, tuple[int, str]] | None = None
) -> None:
    """Store this supervisor's report on `run`: its problems and the ends of workers (`Fleet.ends`)."""
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
    """Return the problems that the supervisor of `run` reports, or that the supervisor is gone."""
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
    """Return a supervisor's problems and workers' ends as lines of `unspool status`."""
    ended = [f"worker {name} ended {count}x, the last time {last}" for name, (count, last) in ends.items()]
    return [f"supervisor: {problem}" for problem in [*problems, *ended]]


def _lock_path(run: RunDirectory) -> Path:
    return run.path / "SUPERVISOR"


def _locked(path: Path, patience_s: float) -> IO[bytes] | None:
    """Return the locked file, or None. Retry, because processes that test the lock hold it briefly."""
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
    who = "its process is unknown" if holder is None else f"pid {holder[0]} on {holder[1]}"
    return (
        f"{run.path} is in use: it has a supervisor ({who}); stop it with `unspool stop {run.path}`, or "
        "launch in another --run-dir"
    )
