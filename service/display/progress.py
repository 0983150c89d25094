"""Progress of a launched run: a bar on a terminal, otherwise a line every few seconds."""

import abc
import contextlib
import datetime
import math
import time
from collections.abc import Callable, Iterator
from typing import IO

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from protos.unspool.v1.admin_pb2 import Status
from service.display.output import Console

_LINE_EVERY_S = 5.0
_WAITING_CHARACTERS = 80


class Display(abc.ABC):
    """Shows a run to a person. Never raises, because a closed terminal must not end a run."""

    @abc.abstractmethod
    def note(self, text: str) -> None:
        """Show an event."""

    @abc.abstractmethod
    def show(self, status: Status) -> None:
        """Show the status of the run."""

    @abc.abstractmethod
    def close(self) -> None:
        """Restore the terminal."""


class BarDisplay(Display):
    """A progress bar, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), auto_refresh=False
        )
        self._task = self._progress.add_task("outer steps", total=None)
        self._facts = Text(style="dim")
        # Only `show` redraws it, so no refresh thread is needed.
        self._live = Live(Group(self._progress, self._facts), console=console, auto_refresh=False)
        self._is_live = False

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._live.console.print(text, highlight=False, markup=False)

    def show(self, status: Status) -> None:
        with contextlib.suppress(OSError):
            self._redraw(status)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._live.stop()

    def _redraw(self, status: Status) -> None:
        if not self._is_live:
            self._live.start()
            self._is_live = True
        self._progress.update(self._task, completed=status.outer_step, total=status.outer_steps)
        self._facts.plain = "  ".join(facts(status))
        self._live.refresh()


class LineDisplay(Display):
    """One line every few seconds, and at once when the run's state changes: for files and pipes."""

    def __init__(self, stream: IO[str], clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._shown_at = -math.inf
        self._state = ""

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the reader is gone
            print(text, file=self._stream, flush=True)

    def show(self, status: Status) -> None:
        if status.state == self._state and self._clock() - self._shown_at < _LINE_EVERY_S:
            return
        self._shown_at, self._state = self._clock(), status.state
        self.note(f"step {status.outer_step}/{status.outer_steps}  " + "  ".join(facts(status)))

    def close(self) -> None:
        return


def display_on(stream: IO[str]) -> Display:
    """Return the display that suits `stream`."""
    console = Console(file=stream)
    return BarDisplay(console) if console.is_terminal else LineDisplay(stream, time.monotonic)


@contextlib.contextmanager
def bars_on(stream: IO[str], *, are_wanted: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function `(name, steps, done)` that shows a progress bar for each name on a terminal.

    Elsewhere it shows nothing. The bars are removed at the end.
    """
    console = Console(file=stream)
    is_hidden = not (are_wanted and console.is_terminal)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bars = Progress(*columns, console=console, auto_refresh=False, transient=True, disable=is_hidden)
    known: dict[str, TaskID] = {}

    def show(name: str, steps: int, done: int) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not end the work
            if name not in known:
                known[name] = bars.add_task(name, total=steps)
            bars.update(known[name], completed=done, refresh=True)

    try:
        with contextlib.suppress(OSError):
            bars.start()
        yield show
    finally:
        with contextlib.suppress(OSError):
            bars.stop()


def facts(status: Status) -> list[str]:
    """Return the facts of a one-line status, the most important first."""
    parts = [] if status.state == "RUNNING" else [status.state.lower().replace("_", " ")]
    if status.HasField("loss"):
        parts.append(f"loss {status.loss:.4g}")
    if status.updates_per_s > 0:
        parts.append(f"{status.updates_per_s:.3g} updates/s")
        parts.append(f"{status.inner_steps_per_s:,.0f} inner steps/s")
    parts.append(f"{len(status.workers)}/{status.workers_desired} workers")
    if status.eta_s > 0:
        parts.append(f"{duration(status.eta_s)} left")
    if status.waiting_for and not status.updates_per_s:
        parts.append(f"waiting for {_shortened(status.waiting_for)}")
    return parts


def _shortened(text: str) -> str:
    return text if len(text) <= _WAITING_CHARACTERS else text[: _WAITING_CHARACTERS - 1] + "…"


def duration(seconds: float) -> str:
    """Return a time span as `h:mm:ss`."""
    return str(datetime.timedelta(seconds=round(seconds)))
