import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from tests.support.patience import PATIENCE_S
from workers.pools.local_pool import LocalPool
from workers.pools.pool import Exit

WAITS = "import sys, time; print(sys.argv[1:], flush=True); open('up', 'w').close(); time.sleep(600)"
IGNORES_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
SHOWS_ENVIRONMENT = "import os, sys; sys.exit(0 if os.environ['UNSPOOL_TEST'] == 'yes' else 1)"


@pytest.fixture(autouse=True)
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Wait until a worker's process opens the pipe that it finds in its working directory."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("up")
    return lambda: Path("up").open().close()


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[Callable[..., LocalPool]]:
    pools = []

    def make(code: str, close_deadline_s: float = PATIENCE_S, learner: str = "127.0.0.1:1") -> LocalPool:
        pools.append(
            LocalPool(
                learner=learner,
                token_file=tmp_path / "token",
                logs_dir=tmp_path / "logs",
                environment={"UNSPOOL_TEST": "yes"},
                command=(sys.executable, "-c", code),
                close_deadline_s=close_deadline_s,
            )
        )
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def exit_of(pool: LocalPool, name: str) -> Exit | None:
    pool._processes[name].wait(PATIENCE_S)
    return pool.poll()[name]


def test_a_worker_gets_its_learners_address_and_logs_into_the_run(make_pool, up, tmp_path):
    pool = make_pool(WAITS)
    pool.start("w0")
    up()
    log = (tmp_path / "logs" / "w0.log").read_text()
    assert all(word in log for word in ("--learner", "127.0.0.1:1", str(tmp_path / "token"), "w0"))
    assert pool.poll() == {"w0": None}
    assert pool.describe()["w0"].state == "running"


def test_an_exit_code_is_reported(make_pool):
    pool = make_pool("raise SystemExit(75)")
    pool.start("w0")
    assert exit_of(pool, "w0") == Exit(75, f"exit code 75: {ExitCode.TEMPORARY.meaning}")


def test_the_environment_is_handed_on(make_pool):
    pool = make_pool(SHOWS_ENVIRONMENT)
    pool.start("w0")
    assert exit_of(pool, "w0") == Exit(0, "exit code 0")


def test_a_killed_worker_is_reported_with_its_signal_and_can_be_started_again(make_pool):
    pool = make_pool(WAITS)
    pool.start("w0")
    pool.kill("w0")
    assert pool.poll()["w0"] == Exit(None, "killed by SIGKILL")
    pool.start("w0")
    assert pool.poll()["w0"] is None


def test_a_worker_that_is_alive_is_not_started_twice(make_pool):
    pool = make_pool(WAITS)
    pool.start("w0")
    with pytest.raises(ValueError, match="w0"):
        pool.start("w0")


def test_closing_asks_workers_to_end(make_pool, up):
    pool = make_pool(WAITS)
    pool.start("w0")
    up()
    pool.close()
    assert pool.poll()["w0"] == Exit(None, "killed by SIGTERM")


def test_closing_kills_workers_that_ignore_sigterm(make_pool, up):
    pool = make_pool(IGNORES_SIGTERM, close_deadline_s=0.0)
    pool.start("w0")
    up()
    pool.close()
    assert pool.poll()["w0"] == Exit(None, "killed by SIGKILL")


def test_a_worker_of_an_earlier_pool_is_adopted_and_can_be_ended(make_pool, up):
    first, later = make_pool(WAITS), make_pool(WAITS)
    first.start("w0")
    up()
    pid = first.describe()["w0"].pid
    assert later.adopt("w0", socket.gethostname(), pid)
    assert later.poll() == {"w0": None}
    with pytest.raises(ValueError, match="w0"):
        later.start("w0")
    later.kill("w0")
    assert exit_of(first, "w0") == Exit(None, "killed by SIGKILL")
    ended = later.poll()["w0"]
    assert ended is not None
    assert ended.code is None


def test_an_adopted_worker_is_asked_to_end_when_the_pool_closes(make_pool, up):
    first, later = make_pool(WAITS), make_pool(WAITS)
    first.start("w0")
    up()
    later.adopt("w0", socket.gethostname(), first.describe()["w0"].pid)
    later.close()
    assert exit_of(first, "w0") == Exit(None, "killed by SIGTERM")


def test_a_worker_that_has_not_joined_yet_is_found_by_what_it_was_started_with(make_pool, up):
    first, later = make_pool(WAITS), make_pool(WAITS)
    first.start("w0")
    up()
    assert later.adopt("w0", "", 0)
    assert later.describe() == first.describe()


def test_a_process_of_another_worker_is_not_adopted(make_pool, up):
    first, later = make_pool(WAITS), make_pool(WAITS)
    first.start("w0")
    up()
    assert not later.adopt("w1", socket.gethostname(), first.describe()["w0"].pid)
    assert later.poll() == {}
    assert first.poll() == {"w0": None}


def test_a_worker_that_looks_for_its_learner_elsewhere_is_adopted_only_if_it_has_joined(make_pool, up):
    first, later = make_pool(WAITS), make_pool(WAITS, learner="127.0.0.1:2")
    first.start("w0")
    up()
    pid = first.describe()["w0"].pid
    assert later.adopt("w0", socket.gethostname(), pid)
    last = make_pool(WAITS, learner="127.0.0.1:3")
    assert not last.adopt("w0", "", 0)
    assert exit_of(first, "w0") == Exit(None, "killed by SIGKILL")


def test_a_worker_that_has_ended_is_not_adopted(make_pool):
    first, later = make_pool(WAITS), make_pool(WAITS)
    first.start("w0")
    first.kill("w0")
    assert not later.adopt("w0", socket.gethostname(), first.describe()["w0"].pid)


def test_a_worker_that_the_kernel_ends_for_its_memory_is_reported_as_that(
    make_pool, up, tmp_path, monkeypatch
):
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 7\noom_kill 1\n")
    monkeypatch.setattr("workers.pools.local_process._VMSTAT", counters)
    pool = make_pool(WAITS)
    pool.start("w0")
    up()
    counters.write_text("pgfault 8\noom_kill 2\n")
    os.kill(pool.describe()["w0"].pid, signal.SIGKILL)
    ended = exit_of(pool, "w0")
    assert ended is not None
    assert ended.out_of_memory


def test_this_machine_is_all_there_is(make_pool):
    pool = make_pool(WAITS)
    assert pool.avoid(["elsewhere"])
    assert not pool.avoid([socket.gethostname()])
    assert pool.draining() == {}


def test_killing_what_is_not_there_does_nothing(make_pool):
    pool = make_pool(WAITS)
    pool.kill("w9")
    assert pool.poll() == {}
