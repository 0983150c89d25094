"""Child processes, with a Python program in the place of `unspool`."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.supervise import child_process
from service.supervise.child_process import ChildProcess, last_line

WAITING = "import sys; print('unspool: waiting', flush=True); sys.stdin.read(); import time; time.sleep(1000)"
Start = Callable[..., ChildProcess]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    monkeypatch.setattr(child_process, "PROGRAM", (sys.executable, "-c"))
    started: list[ChildProcess] = []

    def start(program: str, **environment: str) -> ChildProcess:
        started.append(ChildProcess([program], tmp_path / "log", environment))
        return started[-1]

    yield start
    for child in started:
        child.kill()


def exit_code(child: ChildProcess) -> int | None:
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child.poll()


def test_output_and_errors_are_appended_to_the_log(start: Start, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("an earlier line\n")
    child = start("import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)")
    assert exit_code(child) == 3
    assert (tmp_path / "log").read_text() == "an earlier line\nout\nerr\n"


def test_variables_are_added_to_the_environment(start: Start, tmp_path: Path) -> None:
    child = start(
        "import os; print(os.environ['MINE'], os.environ['PYTHONUTF8'], 'PATH' in os.environ)", MINE="7"
    )
    assert exit_code(child) == 0
    assert (tmp_path / "log").read_text() == "7 1 True\n"


def test_a_child_leads_its_own_session(start: Start, tmp_path: Path) -> None:
    child = start("import os; print(os.getsid(0))")
    assert exit_code(child) == 0
    assert int((tmp_path / "log").read_text()) == child.pid


def test_terminate_sends_sigterm(start: Start) -> None:
    child = start(WAITING)
    child.terminate()
    assert exit_code(child) == -signal.SIGTERM


def test_a_child_that_ignores_sigterm_is_killed_at_its_end(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(child_process, "_END_S", 0.1)
    child = start(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITING}")
    while "waiting" not in (tmp_path / "log").read_text():
        assert child.poll() is None
    child.end()
    assert child.poll() == -signal.SIGKILL


def test_ending_a_child_that_has_ended_keeps_its_exit_code(start: Start) -> None:
    child = start("raise SystemExit(5)")
    assert exit_code(child) == 5
    child.end()
    assert child.poll() == 5


def test_the_last_line_leaves_out_earlier_processes(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier process\n")
    silent = start("pass")
    assert exit_code(silent) == 0
    assert silent.last_log_line() == f"(log: {log})"
    assert last_line(log) == f"of an earlier process (log: {log})"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("first\nunspool: the port is taken\n\n", "the port is taken (log: {log})"),
        ("unspool: the learner failed (log: elsewhere)\n", "the learner failed (log: elsewhere)"),
        ("x" * 10_000 + "\nlast\n", "last (log: {log})"),
    ],
)
def test_the_last_line_is_for_people_and_names_the_log_once(tmp_path: Path, text: str, line: str) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    assert last_line(log) == line.format(log=log)
