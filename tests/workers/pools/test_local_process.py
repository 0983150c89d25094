import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from protos.exit_codes import ExitCode
from tests.support.patience import PATIENCE_S
from workers.pools.local_process import AdoptedProcess, StartedProcess
from workers.pools.pool import Exit

MARK = f"unspool-test-{os.getpid()}"


def popen(code: str, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture
def waiting() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs its program and ends when its input does."""
    with popen("import sys; print(flush=True); sys.stdin.read()", MARK) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before that, its command line may still be that of this process
        yield process
        process.kill()


def test_a_running_process_has_not_ended(waiting):
    process = StartedProcess(waiting)
    assert process.exit() is None
    assert not process.wait(0.0)


def test_a_process_that_ends_by_itself_is_reported_with_its_note(waiting):
    process = StartedProcess(waiting, lambda: "drained: scaled down")
    waiting.stdin.close()
    assert process.wait(PATIENCE_S)
    assert process.exit() == Exit(ExitCode.OK, "scaled down")


def test_a_killed_process_is_reported_with_its_signal(waiting):
    process = StartedProcess(waiting)
    process.kill()
    assert process.wait(PATIENCE_S)
    assert process.exit() == Exit(None, "killed by SIGKILL")


def test_a_signal_is_sent_to_the_process(waiting):
    process = StartedProcess(waiting)
    process.signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S)
    assert process.exit() == Exit(None, "killed by SIGTERM")


def test_a_process_that_has_ended_receives_no_signal(waiting, monkeypatch):
    process = StartedProcess(waiting)
    process.kill()
    process.wait(PATIENCE_S)
    monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail(f"{pid} was sent {number}"))
    monkeypatch.setattr(os, "killpg", lambda pid, number: pytest.fail(f"{pid} was sent {number}"))
    process.signal(signal.SIGTERM)
    process.kill()


def test_another_processs_worker_is_found_by_its_arguments(waiting):
    (found,) = AdoptedProcess.find((MARK,))
    assert found.pid == waiting.pid
    assert found.exit() is None
    found.kill()
    assert found.wait(PATIENCE_S)
    ended = found.exit()
    assert ended is not None
    assert ended.code is None


def test_a_process_with_only_some_of_the_arguments_is_not_found(waiting):
    assert AdoptedProcess.find((MARK, "another")) == []


def test_a_process_that_has_ended_cannot_be_adopted(waiting):
    waiting.kill()
    waiting.wait(PATIENCE_S)
    with pytest.raises(ProcessLookupError):
        AdoptedProcess(waiting.pid)
    assert AdoptedProcess.find((MARK,)) == []
