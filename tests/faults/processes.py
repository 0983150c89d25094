"""A run with real learner and worker processes that start in a fraction of a second and can be killed.

They are forked from a server that has imported all modules, so that a test can kill dozens of them. They run
the code of `unspool learner` and `unspool worker`, in `service.commands.processes`.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from protos.exit_codes import UnspoolError
from protos.messages import as_dict
from protos.rpc.roles import Role
from service.commands.processes import run_learner, run_worker
from service.config.run_config import RunConfig
from service.config.toml_document import write_tables
from service.run.client import AdminClient, connected
from service.run.run_directory import RunDirectory
from tests.faults.namespace import Namespace
from workers.bootstrap import Devices

PATIENCE_S: Final = 90.0
"""Maximum duration of any wait in these tests, in seconds; only failing tests reach it."""

_POLL_S: Final = 0.02
_PRELOADED: Final = [
    "learner.main",
    "workers.main",
    "workers.unrolling.worker",
    "service.commands.processes",
    "unspool.experiment",
]

Status = dict[str, Any]


def fork_server() -> Any:
    """Return the fork server. It starts with the first process and keeps the environment of that time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, "tests.faults.one_hot", "tests.learner.checkpoints"])
    return context


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FaultyRun:
    """A run directory and the processes that a test starts on it."""

    def __init__(self, run_dir: Path, config: str, host: str = "127.0.0.1") -> None:
        self.directory = RunDirectory(run_dir)
        self._tables = tomllib.loads(config)
        self.listen(host)
        self.processes: dict[str, Any] = {}
        self._context = fork_server()

    def listen(self, host: str = "127.0.0.1") -> None:
        """Set the address of later learners to a free port of `host`."""
        self.host, self.port = host, free_port()
        self._tables["learner"] = {"host": host, "port": self.port, "insecure": host != "127.0.0.1"}
        self.config = RunConfig.from_tables(self._tables)
        self.directory.create(write_tables(self.config.to_tables()))

    @property
    def path(self) -> Path:
        return self.directory.path

    @property
    def address(self) -> str:
        """The address of the data plane, the same after every restart of the learner."""
        return f"{self.host}:{self.port}"

    def start_learner(self, *, takeover: bool = False) -> None:
        """Start the learner, without waiting until it listens."""
        self._start("learner", _be_learner, self.path, self.directory.log_path("learner"), takeover)

    def start_worker(self, name: str, address: str = "", inside: Namespace | None = None) -> None:
        """Start a worker with the learner's address, or with the address of a proxy."""
        log, token = self.directory.log_path(name), self.directory.token_path(Role.WORKER)
        self._start(name, _be_worker, address or self.address, token, name, log, inside)

    def start(self, *workers: str, address: str = "") -> None:
        """Start the learner and workers."""
        self.start_learner()
        for name in workers:
            self.start_worker(name, address)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process; after SIGSTOP, wait until it has stopped."""
        pid = self.processes[name].pid
        os.kill(pid, number)
        if number == signal.SIGSTOP:
            until(lambda: all(_is_stopped(task) for task in Path(f"/proc/{pid}/task").iterdir()))

    def kill(self, name: str) -> None:
        """Send SIGKILL, and wait until the process has ended."""
        process = self.processes[name]
        process.kill()
        process.join(PATIENCE_S)

    def exit_code(self, name: str) -> int:
        """Wait for the exit code of a process; negative for a signal."""
        process = self.processes[name]
        process.join(PATIENCE_S)
        assert process.exitcode is not None, f"{name} is still running\n{self.logs()}"
        return int(process.exitcode)

    def has_ended(self, name: str) -> bool:
        return self.processes[name].exitcode is not None

    def status(self) -> Status:
        """Return the status of the run; empty while its learner does not answer."""
        with contextlib.suppress(UnspoolError), self.admin() as admin:
            return dict(as_dict(admin.status()))
        return {}

    def admin(self) -> contextlib.AbstractContextManager[AdminClient]:
        """Return a connection to the admin service."""
        return connected(self.directory)

    def wait_for(self, what: Callable[[Status], Any]) -> Status:
        """Wait for and return the first status for which `what` is true."""
        status: Status = {}

        def holds() -> bool:
            nonlocal status
            status = self.status()
            return bool(status) and bool(what(status))

        until(holds, lambda: f"last status: {status}\n{self.logs()}")
        return status

    def wait_for_step(self, step: int) -> Status:
        """Wait for and return the first status at or after outer step `step`."""
        return self.wait_for(lambda status: status["outer_step"] >= step)

    def events(self) -> str:
        """Return the learner's event log, across restarts."""
        path = self.path / "logs" / "events.jsonl"
        return path.read_text() if path.exists() else ""

    def wait_for_event(self, *words: str) -> None:
        """Wait for a line of the event log that contains all `words`."""
        until(
            lambda: any(all(word in line for word in words) for line in self.events().splitlines()),
            lambda: f"no event with {words}\n{self.logs()}",
        )

    def logs(self) -> str:
        """Return the end of each process's log."""
        paths = sorted((self.path / "logs").iterdir())
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in paths)

    def end(self) -> None:
        """Kill all remaining processes."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.join(PATIENCE_S)

    def _start(self, name: str, target: Callable[..., None], *arguments: Any) -> None:
        process = self._context.Process(target=target, args=arguments, name=name)
        process.start()
        self.processes[name] = process


def lanes_of(status: Status, name: str) -> list[int]:
    """Return the lanes that a worker holds; none if the learner has no session of it."""
    return next((list(worker["lanes"]) for worker in status["workers"] if worker["name"] == name), [])


def state_of(status: Status, name: str) -> str:
    """Return the learner's state of a worker."""
    return next((str(worker["state"]) for worker in status["workers"] if worker["name"] == name), "gone")


@contextlib.contextmanager
def faulty_run(run_dir: Path, config: str) -> Iterator[FaultyRun]:
    """Return a run whose processes are killed after the block."""
    run = FaultyRun(run_dir, config)
    try:
        yield run
    finally:
        run.end()


def until(holds: Callable[[], Any], otherwise: Callable[[], str] = lambda: "") -> None:
    """Poll until `holds` is true; fail with the text of `otherwise` after a timeout."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at, f"not within {PATIENCE_S:g} s\n{otherwise()}"
        time.sleep(_POLL_S)


def _is_stopped(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return True  # the thread has ended


def _be_learner(run_dir: Path, log: Path, takeover: bool) -> None:
    _write_to(log)
    try:
        sys.exit(run_learner(RunDirectory(run_dir), takeover=takeover))
    except UnspoolError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(int(error.exit_code))


def _be_worker(address: str, token: Path, name: str, log: Path, inside: Namespace | None) -> None:
    _write_to(log)
    if inside is not None:
        inside.enter()
    sys.exit(run_worker(address, token, name, Devices(cpu_threads=1)))


def _write_to(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
