"""The program where its streams are closed, cut off, full, or lack characters, and what it says of paths."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from service.run.run_directory import RunDirectory
from tests.service.commands.shell import QUADRATIC

ROOT = QUADRATIC.parents[1]
EVENTS = 3000
NAME = "Läufe"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run with more events than a pipe holds, an event that is not ASCII, and no learner."""
    run = RunDirectory(tmp_path / NAME)
    run.create(QUADRATIC.read_text(encoding="utf-8"))
    event = '{"number": %d, "level": "info", "kind": "kind", "text": "%s±"}\n'
    events = (event % (number, 100 * "x") for number in range(1, EVENTS + 1))
    run.log_path("events").with_suffix(".jsonl").write_text("".join(events), encoding="utf-8")
    return run


def program(
    *arguments: str,
    cwd: Path,
    redirected: str = "",
    stdout: int = subprocess.PIPE,
    environment: Mapping[str, str] = {},
) -> tuple[int, str, str]:
    """Run `unspool` with a shell's redirections; return its exit code, output and errors."""
    shell = f'exec "$@" {redirected}'
    finished = subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-m", "service", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment),
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )
    said = [(text or b"").decode("utf-8", "backslashreplace") for text in (finished.stdout, finished.stderr)]
    return finished.returncode, said[0], said[1]


@pytest.mark.parametrize(
    "arguments",
    [("events", NAME), ("events", NAME, "--json"), ("checkpoint", "list", NAME), ("launch", "--help")],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(
    run: RunDirectory, arguments: Sequence[str], unbuffered: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = program(
            *arguments, cwd=run.path.parent, stdout=writing, environment={"PYTHONUNBUFFERED": unbuffered}
        )
    finally:
        os.close(writing)
    assert ended == (ExitCode.OK, "", "")


def test_an_error_keeps_its_exit_code_if_nobody_reads_it(run: RunDirectory) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = program("workers", NAME, "--json", cwd=run.path.parent, stdout=writing)
    finally:
        os.close(writing)
    assert ended == (ExitCode.UNREACHABLE, "", "")


@pytest.mark.parametrize("redirected", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_streams_change_no_answer(run: RunDirectory, redirected: str) -> None:
    expected = program("events", NAME, cwd=run.path.parent)
    assert program("events", NAME, cwd=run.path.parent, redirected=redirected) == expected
    assert expected[1].count("\n") == EVENTS


def test_a_closed_output_swallows_the_answer(run: RunDirectory) -> None:
    assert program("events", NAME, cwd=run.path.parent, redirected=">&-") == (ExitCode.OK, "", "")


def test_a_full_output_is_named(run: RunDirectory) -> None:
    exit_code, _, error = program("events", NAME, cwd=run.path.parent, redirected="> /dev/full")
    assert exit_code == ExitCode.SYSTEM
    assert error.startswith("unspool: standard output: No space left on device (make room")


def words_of(text: str) -> list[str]:
    """The words of a text, however it is wrapped and framed."""
    return re.findall(r"[A-Za-z]{2,}", text)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "cp437"},
    ],
)
@pytest.mark.parametrize("arguments", [("events", NAME), ("launch", "--help"), ("workers", NAME)])
def test_a_terminal_without_a_character_shows_another(
    run: RunDirectory, arguments: Sequence[str], environment: dict[str, str]
) -> None:
    expected = program(*arguments, cwd=run.path.parent)
    exit_code, output, error = program(*arguments, cwd=run.path.parent, environment=environment)
    assert exit_code == expected[0]
    if "--help" in arguments:
        assert words_of(output) == words_of(expected[1])
    else:
        assert len(output.splitlines()) == len(expected[1].splitlines())
    assert "internal error" not in error
    if arguments[0] == "workers":
        assert "does not listen" in error


def test_a_configuration_is_checked_in_a_locale_without_utf_8(tmp_path: Path) -> None:
    (tmp_path / "ä.toml").write_text("# ä\n" + QUADRATIC.read_text(encoding="utf-8"), encoding="utf-8")
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    exit_code, _, error = program(
        "check", "ä.toml", "--set", "estimators.0.type='Ä'", cwd=tmp_path, environment=environment
    )
    assert exit_code == ExitCode.USAGE
    assert "estimators[0].type" in error
