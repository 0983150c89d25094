"""Short reports of exceptions: type, message, and the innermost line of user code.

A traceback through JAX ends in JAX, or in a note that JAX appends; the traceback of a callback is part of the
text of another exception. The relevant line is the last one outside this program, installed packages and the
standard library.
"""

import re
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from unspool.config.hidden_module import PACKAGES

MESSAGE_CHARACTERS: Final = 300
"""The length at which messages are truncated."""

_ROOT: Final = str(Path(__file__).resolve().parent.parent)
_STANDARD: Final = tuple({str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib")})
_INSTALLED: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]")
_FRAMEWORK: Final = re.compile(
    r"[/\\](?:site|dist)-packages[/\\]"
    r"(?:jax|jaxlib|jax_plugins|numpy|scipy|optax|chex|flax|haiku|grpc|ray|google|tyro|rich)[/\\]"
)
_EMBEDDED: Final = "Traceback (most recent call last):"
_FRAME: Final = re.compile(r'\s*File "(?P<path>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.*))?')
_USERS, _OF_A_PACKAGE, _OF_THIS_PROGRAM, _OF_A_FRAMEWORK = range(4)
_Rank: TypeAlias = tuple[int, bool]  # rank of the frame, and whether this program raised below it


class Frame(NamedTuple):
    """A location in the code: a file, a line from 1, and the enclosing function or an empty string."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        path = Path(self.path)
        name = f"{path.parent.name}/{path.name}" if path.stem == "__init__" else path.name
        where = f" in {self.function}" if self.function and self.function != "<module>" else ""
        return f"{name}:{self.line}{where}"

    @property
    def rank(self) -> int:
        """The owner of the code; a lower rank is more likely the relevant line."""
        if self.path.startswith("<"):
            return _OF_A_FRAMEWORK
        path = str(Path(self.path).resolve())
        if _INSTALLED.search(path):
            return _rank_of_installed(path)
        if path.startswith(tuple(f"{_ROOT}/{package}/" for package in PACKAGES)):
            return _OF_THIS_PROGRAM
        return _OF_A_FRAMEWORK if path.startswith(_STANDARD) else _USERS


class FailureReport(NamedTuple):
    """A one-line summary of an exception.

    Attributes:
        type: the name of its class.
        message: the first line of its message, truncated to `MESSAGE_CHARACTERS`.
        frame: the relevant line, or None without a traceback.
    """

    type: str
    message: str
    frame: Frame | None

    @classmethod
    def of(cls, error: BaseException) -> "FailureReport":
        """Return the report of `error`, or of the exception in its chain that involves user code.

        In a chain of exceptions this is the last one raised from a line of user code, or else the last one.
        """
        reports = [report for one in _chain(error) for report in _reports(one)]
        return min(reports, key=lambda ranked: ranked[0])[1]

    @property
    def is_users(self) -> bool:
        """Whether `frame` is outside this program and the frameworks below it."""
        return self.frame is not None and self.frame.rank in (_USERS, _OF_A_PACKAGE)

    def __str__(self) -> str:
        said = f"{self.type}: {self.message}" if self.message else self.type
        return f"{said} ({self.frame})" if self.frame is not None else said


def traceback_of(error: BaseException) -> str:
    """Return the whole chain of tracebacks of `error`, and its report as the last line."""
    return f"{''.join(traceback.format_exception(error)).rstrip()}\n\n{FailureReport.of(error)}"


def last_line(text: str, characters: int = 500) -> str:
    """Return the last line of a traceback or a log, truncated."""
    return text.strip().rpartition("\n")[2].strip()[:characters]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and its causes, the last one raised first."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        before = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if before is not None:
            waiting.append(before)


def _reports(error: BaseException) -> Iterator[tuple[_Rank, FailureReport]]:
    """Yield ranked reports: that of a callback's exception quoted in the text, if any, and that of
    `error`.
    """
    text = _text_of(error)
    quoted = _quoted(text)
    if quoted is not None:
        yield quoted
    frames = [
        Frame(one.filename, one.lineno or 0, one.name) for one in traceback.extract_tb(error.__traceback__)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(Frame(error.filename, error.lineno or 0, ""))
        text = error.msg
    yield _ranked(type(error).__qualname__, text, frames)


def _quoted(text: str) -> tuple[_Rank, FailureReport] | None:
    """Return the ranked report of an exception whose traceback is part of `text`, or None."""
    _, found, rest = text.rpartition(_EMBEDDED)
    if not found:
        return None
    frames: list[Frame] = []
    for line in rest.splitlines():
        match = _FRAME.match(line)
        if match:
            frames.append(Frame(match["path"], int(match["line"]), match["function"] or ""))
        elif frames and line and not line[0].isspace():
            name, _, message = line.partition(": ")
            return _ranked(name.rpartition(".")[2], message, frames)
    return None


def _ranked(kind: str, text: str, frames: Sequence[Frame]) -> tuple[_Rank, FailureReport]:
    """Return a report with the last frame of the lowest rank, and its rank."""
    ranks = [frame.rank for frame in frames]
    best = min(ranks, default=_OF_A_FRAMEWORK)
    last = len(ranks) - 1 - ranks[::-1].index(best) if ranks else None
    is_ours = last is not None and _OF_THIS_PROGRAM in ranks[last:]
    report = FailureReport(kind, _first_line(text), None if last is None else frames[last])
    return (best + 1 if last is None else best, is_ours), report


def _rank_of_installed(path: str) -> int:
    if _FRAMEWORK.search(path):
        return _OF_A_FRAMEWORK
    within = path[list(_INSTALLED.finditer(path))[-1].end() :]
    return _OF_THIS_PROGRAM if within.split("/")[0] in PACKAGES else _OF_A_PACKAGE


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # user classes may raise anything
        return "(its message cannot be shown)"


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= MESSAGE_CHARACTERS else line[: MESSAGE_CHARACTERS - 1] + "…"
