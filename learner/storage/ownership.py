"""Which process may write to a run directory: the one that holds its lock and has the highest epoch.

The lock (an flock on `LOCK`) keeps learners apart that can see each other's. It cannot move one that hangs,
or sits on a machine that is cut off. The epoch can: a number in the directory that every learner process
raises when it starts. A learner that finds it higher than its own is outdated, and checks this right before
each rename that would make a file of its own count. A new process raises the epoch first and then removes
unfinished files, so that no file of an outdated learner can take its name later.
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

from learner.storage.files import try_lock, write_durably
from protos.exit_codes import FencedError, RunInUseError

_POLL_S: Final = 0.1
_PROBES_S: Final = 0.5
_YIELD_S: Final = 60.0
_COUNTING_S: Final = 5.0


class Ownership:
    """One learner's hold on a run directory.

    Args:
        directory: of the run.
        clock: monotonic seconds.
        wait: lets seconds pass.
        lease_s: a holder that has not renewed `LOCK` for so long is not waited for in a takeover.
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
        self._epoch_path = directory / "epoch"
        self._clock = clock
        self._wait = wait
        self._lease_s = lease_s
        self._file: IO[bytes] | None = None
        self.epoch = 0

    @contextlib.contextmanager
    def held(self, *, takeover: bool = False) -> Iterator[None]:
        """Hold the directory. The lock ends with the process, however that ends.

        Args:
            takeover: take it from a learner that holds it: by its leave, or without once it is outdated and
                has not renewed its lease.

        Raises:
            RunInUseError: naming the process that holds it.
        """
        self._file = self._locked(_PROBES_S) or (self._taken_over() if takeover else None)
        if self._file is None:
            raise RunInUseError(
                f"{self._directory}: another learner holds this run directory ({self._holder()}); "
                "stop it, use another directory, or take the run over with --takeover"
            )
        with self._file:
            _sign(self._file)
            yield

    def begin_epoch(self) -> int:
        """Raise the epoch, from 1; returns it. Earlier learner processes are outdated from now on.

        Raises:
            RunInUseError: another process does the same at this moment and does not finish.
        """
        with self._alone():
            self.epoch = self._epoch_on_disk() + 1
            write_durably(self._epoch_path, f"{self.epoch}\n".encode())
        return self.epoch

    def check(self) -> None:
        """Make sure that no later learner process has started.

        Raises:
            FencedError: one has.
            OSError: the directory cannot be read.
        """
        latest = self._epoch_on_disk()
        if latest > self.epoch:
            raise FencedError(
                f"{self._directory}: taken over by another learner (epoch {latest}, this one is {self.epoch})"
            )

    def renew(self) -> None:
        """Write into `LOCK` that its holder is alive.

        Raises:
            OSError: the disk refused.
        """
        if self._file is not None:
            _sign(self._file)

    def keep(self) -> None:
        """Check and renew; called about once a second. A disk that does not answer is no reason to give up.

        Raises:
            FencedError: another learner owns the directory now.
        """
        with contextlib.suppress(OSError):
            self.check()
            self.renew()

    def _locked(self, patience_s: float) -> IO[bytes] | None:
        """Return the locked file. A process that checks if the run is in use also holds it for a moment."""
        give_up_at = self._clock() + patience_s
        while (file := self._try_lock()) is None and self._clock() < give_up_at:
            self._wait(_POLL_S)
        return file

    def _try_lock(self) -> IO[bytes] | None:
        file = _open(self._path)
        if try_lock(file) and self._is_current(file):
            return file
        file.close()
        return None

    def _is_current(self, file: IO[bytes]) -> bool:
        """Whether the locked file is the one that others find, and was not replaced since."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _taken_over(self) -> IO[bytes]:
        """Outdate the holder; return its file, locked, once it has left, or else a new one in its place."""
        raised = self.begin_epoch()
        began_s = seen_s = self._clock()
        seen = self._content()
        while (file := self._try_lock()) is None:
            now_s, content = self._clock(), self._content()
            if content != seen:
                seen, seen_s = content, now_s
            if now_s - seen_s > self._lease_s:
                return self._replace()
            if self._epoch_on_disk() > raised or now_s - began_s > _YIELD_S:
                raise RunInUseError(
                    f"{self._directory}: the learner that holds it ({self._holder()}) does not give way; it "
                    "has taken the run over at the same moment, or is of another version"
                )
            self._wait(_POLL_S)
        return file

    def _replace(self) -> IO[bytes]:
        """Put another locked file in the place of the one that a process holds which cannot be reached."""
        begun = self._path.with_name(f".{self._path.name}.{socket.gethostname()}.{os.getpid()}")
        file = _open(begun)
        fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file)
        begun.replace(self._path)
        return file

    def _epoch_on_disk(self) -> int:
        try:
            return int(self._epoch_path.read_text())
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others, who may not hold the lock, from counting at the same time."""
        give_up_at = self._clock() + _COUNTING_S
        with _open(self._directory / ".epoch.lock") as file:
            while not try_lock(file):
                if self._clock() > give_up_at:
                    raise RunInUseError(f"{self._directory}: another learner is about to begin; try again")
                self._wait(_POLL_S)
            yield

    def _content(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8")
        except OSError:
            return ""

    def _holder(self) -> str:
        try:
            holder = json.loads(self._content())
            return f"pid {holder['pid']} on {holder['host']}"
        except (ValueError, KeyError, TypeError):
            return "it has not said who it is"


def _open(path: Path) -> IO[bytes]:
    """Open a file that may not be there yet. It is not truncated: until it is locked, it is another's."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)


def _sign(file: IO[bytes]) -> None:
    holder: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
    holder["renewed_unix_time_s"] = round(time.time(), 3)
    text = json.dumps(holder)
    # In place and as long as what is there: a full disk has room for it, and no reader sees halves of two.
    size = os.fstat(file.fileno()).st_size
    os.pwrite(file.fileno(), text.ljust(size).encode(), 0)
