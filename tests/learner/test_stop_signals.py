"""SIGTERM once, twice, and thrice."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from learner import main
from tests.learner.builders import make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner

SIGNALLED = """
import os, signal, sys
from learner.stop_signals import stop_signals
with stop_signals(lambda received: print(received.name, flush=True)):
    for number in sys.argv[1:]:
        os.kill(os.getpid(), int(number))
sys.exit(3)
"""


@pytest.mark.parametrize(("signals", "exit_code"), [((15,), 3), ((15, 2), 3), ((15, 2, 15), 75)])
def test_two_signals_are_handed_on_and_a_third_ends_the_process(
    signals: tuple[int, ...], exit_code: int
) -> None:
    arguments = [sys.executable, "-c", SIGNALLED, *map(str, signals)]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    names = [signal.Signals(number).name for number in signals[:2]]
    assert (ended.returncode, ended.stdout.split()) == (exit_code, names)


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[signal.Signals], None]]:
    """What a signal does to the learner that runs in a thread of this process."""
    caught: list[Callable[[signal.Signals], None]] = []

    @contextlib.contextmanager
    def catch(put: Callable[[signal.Signals], None]) -> Iterator[None]:
        caught.append(put)
        yield

    monkeypatch.setattr(main, "stop_signals", catch)
    return caught


def test_a_second_signal_does_not_wait_for_the_outer_step(
    tmp_path: Path, send: list[Callable[[signal.Signals], None]]
) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        worker = HandWrittenWorker(running).enter()  # which holds its lanes, and computes for ever
        worker.grants(3)
        send[0](signal.SIGTERM)
        while running.status().state != "STOPPING":
            pass
        send[0](signal.SIGTERM)
        assert running.wait() == 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000000.safetensors"]


def test_an_outer_step_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, send: list[Callable[[signal.Signals], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "_DRAIN_S", 0.2)
    with RunningLearner(make_settings(tmp_path)) as running:
        worker = HandWrittenWorker(running).enter()  # which holds its lanes, and computes for ever
        worker.grants(3)
        send[0](signal.SIGTERM)
        assert running.wait() == 0
    assert "takes more than" in (tmp_path / "logs" / "events.jsonl").read_text()
