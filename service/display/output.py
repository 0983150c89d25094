"""Answers of commands: JSON for programs, tables for people, and errors likewise."""

import contextlib
import dataclasses
import errno
import json
import os
import sys
from collections.abc import Iterable
from typing import IO, Any, Final

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.live import Live

from protos.exit_codes import ExitCode, UnspoolError
from service.display.standard_streams import writing_output
from unspool.config.config_error import ConfigError

_UNLIMITED_WIDTH: Final = 1000


class Console(RichConsole):
    """A console that raises on a closed pipe, where Rich would end the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        """Raise `BrokenPipeError`, to be handled by the caller."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def answer(facts: Any, as_json: bool, for_people: RenderableType) -> None:
    """Print `facts` as JSON, or `for_people`, which shows the same."""
    if as_json:
        with writing_output():
            _print(json.dumps(facts), sys.stdout)
        return
    # If no terminal limits the width, cut nothing off.
    console = Console(width=None if sys.stdout.isatty() else _UNLIMITED_WIDTH)
    with writing_output():
        console.print(for_people, highlight=False, markup=False, soft_wrap=True)


def answer_again(answers: Iterable[tuple[Any, RenderableType]], as_json: bool) -> None:
    """Print each of `answers`, facts and the same for people; on a terminal, each replaces the one before."""
    console = Console()
    if as_json or not console.is_terminal:
        for facts, for_people in answers:
            answer(facts, as_json, for_people)
        return
    with Live(console=console, auto_refresh=False) as live:
        for _, for_people in answers:
            live.update(for_people, refresh=True)


def report_notes(notes: Iterable[object]) -> None:
    """Print notes to stderr, apart from the answer."""
    for note in notes:
        _print(f"unspool: {note}", sys.stderr)


def report_error(error: UnspoolError | ConfigError, as_json: bool) -> ExitCode:
    """Print an error if possible, and return its exit code."""
    with contextlib.suppress(OSError):
        _report(error, as_json)
    return _exit_code_of(error)


def _exit_code_of(error: UnspoolError | ConfigError) -> ExitCode:
    return ExitCode.USAGE if isinstance(error, ConfigError) else error.exit_code


def _report(error: UnspoolError | ConfigError, as_json: bool) -> None:
    problems = error.problems if isinstance(error, ConfigError) else ()
    if as_json:
        listed = [dataclasses.asdict(problem) for problem in problems]
        report = {"error": str(error), "exit_code": _exit_code_of(error), "problems": listed}
        with writing_output():
            _print(json.dumps(report), sys.stdout)
    elif problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        _print("\n  ".join([f"unspool: {count} in the configuration", *map(str, problems)]), sys.stderr)
    else:
        _print(f"unspool: {error}", sys.stderr)


def _print(text: str, stream: IO[str]) -> None:
    stream.write(text + "\n")
    stream.flush()
