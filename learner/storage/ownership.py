"""Ownership of a run directory: only the process with its lock and the highest term may write to it.

The lock (an flock on `LOCK`) excludes learners whose locks are visible to each other. It cannot displace a
learner that hangs or whose machine is disconnected. The term, a fencing number in the directory, can: every
learner process increments it when it starts. A learner that reads a higher term than its own is fenced; it
checks this right before each rename that completes a file. A new process increments the term first and then
removes unfinished files, so that no fenced learner can complete a file later.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from learner.storage.files import lock_holder, try_lock, write_durably
from protos.exit_codes import FencedError, RunInUseError

_POLL_S: Final = 0.1
_PROBES_S: Final = 0.5  # checks whether a run is in use hold the lock for less time
_YIELD_S: Final = 60.0  # the longest wait in a takeover for a holder that keeps renewing its lease
_COUNTING_S: Final = 5.0  # the longest wait for another process that increments the term


class Ownership:
    """One learner's ownership of a run directory.

    Args:
        directory: the run directory.
        clock: returns monotonic seconds.
        wait: sleeps for a number of seconds.
        lease_s: a takeover does not wait for a holder that has not renewed `LOCK` for this many seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        lease_s: float = 15.0,
    ) -> None:
        self._directory = directory
        self._path = directory / "LOCK"
        self._clock = clock
        self._wait = wait
        self._lease_s = lease_s
        self._file: IO[bytes] | None = None
        self.term = 0

    @contextlib.contextmanager
    def held(self, *, takeover: bool = False) -> Iterator[None]:
        """Hold the directory's lock. The operating system releases it when the process exits.

        Args:
            takeover: fence a learner that holds the directory, and take the directory once that learner has
                released it or has not renewed its lease.

        Raises:
            RunInUseError: another process holds it; the error names the process.
        """
        self._file = self._locked(self._path, _PROBES_S) or (self._taken_over() if takeover else None)
        if self._file is None:
            raise RunInUseError(
                f"{self._directory}: another learner holds this run directory ({self._holder()}); "
                "stop it, use another directory, or take the run over with --takeover"
            )
        with self._file:
            _sign(self._file)
            yield

    def begin_term(self) -> int:
        """Increment the term, which starts at 1, and return it. This fences earlier learner processes.

        Raises:
            RunInUseError: another process is incrementing it and does not finish in time.
        """
        # Serialize increments, which do not require holding the directory's lock.
        alone = self._locked(self._directory / ".term.lock", _COUNTING_S)
        if alone is None:
            raise RunInUseError(f"{self._directory}: another learner is starting; try again")
        with alone:
            self.term = read_term(self._directory) + 1
            for path in _term_files(self._directory):
                if path.name == "term" or path.exists():  # the old file fences learners of older programs
                    write_durably(path, f"{self.term}\n".encode())
        return self.term

    def check(self) -> None:
        """Check that no later learner process has started.

        Raises:
            FencedError: a later one has started.
            OSError: the directory cannot be read.
        """
        latest = read_term(self._directory)
        if latest > self.term:
            raise FencedError(
                f"{self._directory}: taken over by another learner (term {latest}, this one is {self.term})"
            )

    def renew(self) -> None:
        """Renew the lease by writing the current time to `LOCK`.

        Raises:
            OSError: the file could not be written.
        """
        if self._file is not None:
            _sign(self._file)

    def keep(self) -> None:
        """Check and renew, ignoring disk errors; called about once a second.

        Raises:
            FencedError: another learner owns the directory.
        """
        with contextlib.suppress(OSError):
            self.check()
            self.renew()

    def _locked(self, path: Path, patience_s: float) -> IO[bytes] | None:
        """Return a locked file, or None. Retry, because other processes also lock it briefly."""
        give_up_at = self._clock() + patience_s
        while (file := _try_to_open_locked(path)) is None and self._clock() < give_up_at:
            self._wait(_POLL_S)
        return file

    def _taken_over(self) -> IO[bytes]:
        """Fence the holder; return its file, locked, after it exits, or a new one if its lease expires."""
        raised = self.begin_term()
        began_s = seen_s = self._clock()
        seen = self._content()
        while (file := _try_to_open_locked(self._path)) is None:
            now_s, content = self._clock(), self._content()
            if content != seen:
                seen, seen_s = content, now_s
            if now_s - seen_s > self._lease_s:
                return self._replace()
            if read_term(self._directory) > raised or now_s - began_s > _YIELD_S:
                raise RunInUseError(
                    f"{self._directory}: the learner that holds it ({self._holder()}) does not yield; it "
                    "has taken over the run at the same time, or has another version"
                )
            self._wait(_POLL_S)
        return file

    def _replace(self) -> IO[bytes]:
        """Replace the lock file of an unreachable process with a new, locked file."""
        new = self._path.with_name(f".{self._path.name}.{socket.gethostname()}.{os.getpid()}")
        file = _open(new)
        fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file)
        new.replace(self._path)
        return file

    def _content(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except OSError:
            return ""

    def _holder(self) -> str:
        holder = lock_holder(self._path)
        return "an unknown process" if holder is None else f"pid {holder[0]} on {holder[1]}"


def read_term(directory: Path) -> int:
    """Return the term of the newest learner process in a run directory; 0 if there was none.

    Raises:
        OSError: the directory cannot be read.
        ValueError: the file contains no number.
    """
    return max((int(path.read_text()) for path in _term_files(directory) if path.exists()), default=0)


def _term_files(directory: Path) -> list[Path]:
    """Return where the term is stored: in `term`, and in `epoch` by programs up to November 2026."""
    return [directory / "term", directory / "epoch"]


def _open(path: Path) -> IO[bytes]:
    """Open or create a file without truncating it, because another process may hold its lock."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)


def _try_to_open_locked(path: Path) -> IO[bytes] | None:
    file = _open(path)
    if try_lock(file) and _is_current(file, path):
        return file
    file.close()
    return None


def _is_current(file: IO[bytes], path: Path) -> bool:
    """Return whether a locked file is still the one at its path and was not replaced."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: IO[bytes]) -> None:
    """Write who holds the lock, and when."""
    holder: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
    holder["renewed_unix_time_s"] = round(time.time(), 3)
    text = json.dumps(holder)
    # Overwrite in place with at least the old length, so that a full disk does not matter and readers never
    # see parts of two versions.
    size = os.fstat(file.fileno()).st_size
    os.pwrite(file.fileno(), text.ljust(size).encode(), 0)
