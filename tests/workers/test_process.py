import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from tests.support.patience import PATIENCE_S
from workers.pools.actor import ActorOutcome, WorkerActor
from workers.settings import WorkerSettings

NOBODY = "127.0.0.1:1"
RUNS = f"""
import sys
from workers.main import run
from workers.settings import WorkerSettings
sys.exit(run(WorkerSettings(learner={NOBODY!r}, token="token", name="w0"), {{"JAX_PLATFORMS": "cpu"}}))
"""


def read_until(process: subprocess.Popen[str], word: str) -> None:
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"the process ended with {process.wait()} and did not write {word!r}")


def test_a_process_shows_its_stacks_on_sigusr1_and_drains_on_sigterm():
    process = subprocess.Popen([sys.executable, "-c", RUNS], stderr=subprocess.PIPE, text=True)
    read_until(process, "looks for the learner at")
    process.send_signal(signal.SIGUSR1)
    read_until(process, "most recent call first")
    process.terminate()
    read_until(process, "drained")
    assert process.wait(PATIENCE_S) == ExitCode.OK


def test_an_actor_is_answered_beside_its_run_and_drains(tmp_path: Path):
    outcome = ActorOutcome(linger_s=0.0, leave=lambda code: None)
    actor = WorkerActor(NOBODY, "token", "", "w0", "run", str(tmp_path), outcome)
    assert actor.location()[1] == os.getpid()
    assert "not started" in actor.stack()
    ends: list[tuple[int, str]] = []
    running = threading.Thread(target=lambda: ends.append(actor.run()))
    actor.drain("scaled down")
    running.start()
    running.join()
    assert ends == [actor.outcome(0.0)]
    assert ends[0] == (ExitCode.OK, "drained before the learner answered: scaled down")
    assert "worker.py" in actor.stack()


def test_an_actors_process_ends_after_its_work_even_if_that_has_failed(tmp_path: Path):
    codes: queue.SimpleQueue[int] = queue.SimpleQueue()
    outcome = ActorOutcome(linger_s=0.0, leave=codes.put)
    actor = WorkerActor(NOBODY, "token", str(tmp_path), "w0", "run", str(tmp_path), outcome)
    assert actor.outcome(0.0) is None
    code, why = actor.run()
    assert code == ExitCode.FAILED
    assert "TlsError" in why
    assert codes.get(timeout=PATIENCE_S) == ExitCode.FAILED


@pytest.mark.parametrize(
    "wrong", [{"learner": "nowhere"}, {"token": ""}, {"name": ""}, {"drain_s": 0.0}, {"orphan_ttl_s": -1.0}]
)
def test_settings_that_cannot_work_are_refused_by_name(wrong):
    settings = {"learner": NOBODY, "token": "token", "name": "w0"} | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WorkerSettings(**settings)


def test_a_token_is_not_shown():
    assert "secret" not in repr(WorkerSettings(learner=NOBODY, token="secret", name="w0"))
