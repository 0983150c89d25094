import os
import queue
import threading
from pathlib import Path

from protos.exit_codes import ExitCode
from tests.support.patience import PATIENCE_S
from workers.pools.actor import ActorOutcome, WorkerActor

NOBODY = "127.0.0.1:1"


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


def test_an_outcome_is_kept_until_the_process_exits() -> None:
    codes: queue.SimpleQueue[int] = queue.SimpleQueue()
    outcome = ActorOutcome(linger_s=0.0, leave=codes.put)
    assert outcome.wait(0.0) is None
    outcome.settle(ExitCode.TEMPORARY, "no learner")
    assert outcome.wait(0.0) == (75, "no learner")
    assert codes.get(timeout=PATIENCE_S) == 75
