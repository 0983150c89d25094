"""Launches a run: starts its processes and supervises them until the run ends."""

import contextlib
import dataclasses
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeVar

from learner.state.code_failures import read_report
from protos.exit_codes import (
    FailedError,
    InterruptedRunError,
    LearnerUnreachableError,
    UnspoolError,
    UsageError,
)
from protos.rpc.connection import host_of, is_loopback
from protos.rpc.roles import Role
from protos.unspool.v1.admin_pb2 import Status
from service.config.run_config import RunConfig
from service.config.toml_document import read_tables
from service.display import tables
from service.display.output import report_notes
from service.display.progress import Display
from service.run.client import AdminClient, connected
from service.run.environments import ignored_variables, learner_environment, worker_environment
from service.run.last_status import last_status
from service.run.run_directory import Endpoints, RunDirectory
from service.run.supervision import note_supervision, supervising
from service.supervise.child_process import ChildProcess
from service.supervise.fleet import Fleet
from service.supervise.learner_process import LearnerProcess, running_learner
from service.supervise.learner_restarts import LearnerRestarts
from service.supervise.ray_cluster import WAIT_S, await_cluster, temporary_folder
from service.supervise.stop_signals import StopSignals
from service.supervise.supervisor import Supervisor, failure_of
from workers.pools.local_pool import LocalPool
from workers.pools.pool import LearnerAccess, WorkerPool
from workers.pools.ray_connection import CONNECT_S

_STEP_S = 0.5
_START_S = 180.0
_HANDOVER_S = 60.0
_STOPPING = (
    "stopping after the running outer step, with a checkpoint; Ctrl-C again not to wait for the step",
    "stopping at once, with a checkpoint; Ctrl-C again to kill everything",
)

_Found = TypeVar("_Found")


@dataclasses.dataclass(frozen=True)
class Backend:
    """Where workers run.

    Attributes:
        kind: "ray" runs them as Ray actors, "local" as processes of this machine.
        address: of an existing Ray cluster; None starts one that ends with the run.
    """

    kind: Literal["ray", "local"] = "ray"
    address: str | None = None

    def check(self) -> None:
        """Check that this backend can work on this machine, before anything is started.

        Raises:
            UsageError: Ray cannot be started here; the message names the folder, its limit and the remedy.
        """
        if self.kind == "ray" and self.address is None:
            finding = temporary_folder()
            if finding.state == "problem":
                raise UsageError(f"{finding.text}; {finding.remedy}")


def supervise(run: RunDirectory, backend: Backend, display: Display, *, takeover: bool = False) -> Status:
    """Run the learner and the workers of `run` until it ends; return its last status.

    A learner and workers that run without a supervisor are adopted as they are. No process is left behind,
    however the run ends.

    Args:
        run: the run to supervise.
        backend: where workers run.
        display: shows progress to a person.
        takeover: take the run over from its current learner and supervisor.

    Raises:
        UnspoolError: the run did not start, or did not end successfully.
    """
    backend.check()
    config = RunConfig.from_tables(read_tables(run.config_path))
    with contextlib.ExitStack() as stack:
        stack.callback(display.close)
        signals = stack.enter_context(StopSignals())
        display.note(f"run {run.name} in {run.path}")
        for foreign in ignored_variables(config):
            display.note(str(foreign))
        if backend.kind == "ray" and backend.address is not None:
            display.note(f"waiting for the Ray cluster at {backend.address}, {WAIT_S:.0f} s at most")
            await_cluster(backend.address, lambda: signals.count > 0)
        if not takeover:
            stack.enter_context(supervising(run))
        learner = _first_learner(run, config, takeover, display)
        restarts = LearnerRestarts(learner, lambda: _start_learner(run, config), time.monotonic)
        stack.callback(restarts.end)
        try:
            endpoints = await_learner(run, learner, signals)
            if takeover:
                stack.enter_context(supervising(run, handover_s=_HANDOVER_S))
            if endpoints is not None:
                _warn_of_exposure(config, display)
                idle = tables.idle_workers(config.workers.count, config.aggregation.lanes)
                if idle:
                    display.note(idle)
                display.note(f"status page {endpoints.page}, or: unspool status {run.path}")
                pool = _start_pool(backend, run, config, endpoints, display, signals)
                admin = AdminClient(endpoints.admin, run.token(), config.tls.of(Role.ADMIN))
                with _supervisor(run, restarts, pool, admin, endpoints) as supervisor:
                    follow_run(run, supervisor, signals, display)
        except KeyboardInterrupt:
            restarts.stop_restarting()
            restarts.kill()
            raise InterruptedRunError(f"killed; launch {run.path} again to resume it") from None
        status = last_status(run)
        display.show(status)
        return status


def _first_learner(run: RunDirectory, config: RunConfig, takeover: bool, display: Display) -> LearnerProcess:
    if takeover:
        return _start_learner(run, config, "--takeover")
    adopted = running_learner(run)
    if adopted is None:
        return _start_learner(run, config)
    display.note(f"its learner runs (pid {adopted.pid}) and keeps the configuration that it has")
    return adopted


def _start_learner(run: RunDirectory, config: RunConfig, *options: str) -> ChildProcess:
    arguments = ["learner", str(run.path.resolve()), *options]
    return ChildProcess(arguments, run.log_path("learner"), learner_environment(config))


def detach(run: RunDirectory, backend: Backend, *, takeover: bool = False) -> Status:
    """Start a process that supervises `run`; return the status once a worker has joined or the run has ended.

    Args:
        run: the run to supervise.
        backend: where workers run.
        takeover: take the run over from its current learner and supervisor.

    Raises:
        UnspoolError: no worker has joined; the message gives the reason.
    """
    address = ["--address", backend.address] if backend.address else []
    options = [*address, *["--takeover"] * takeover]
    arguments = ["supervise", str(run.path.resolve()), "--backend", backend.kind, *options]
    report_notes(ignored_variables(RunConfig.from_tables(read_tables(run.config_path))))
    supervisor = ChildProcess(arguments, run.log_path("supervisor"), {})
    try:
        status = _first(lambda: _status_with_worker(run), supervisor, _STEP_S)
    except TimeoutError:
        raise InterruptedRunError(
            f"no worker has joined within {_START_S:.0f} s; it is still trying. {supervisor.last_log_line()}"
        ) from None
    return last_status(run) if status is None else status


def _status_with_worker(run: RunDirectory) -> Status | None:
    try:
        with connected(run) as admin:
            status = admin.status()
    except UnspoolError:
        return None
    return status if status.workers or status.workers_desired == 0 else None


def await_learner(run: RunDirectory, learner: LearnerProcess, signals: StopSignals) -> Endpoints | None:
    """Return the learner's endpoints; None if it had nothing to do and has exited.

    Raises:
        UnspoolError: the learner failed, does not listen in time, or the user stopped the launch.
    """

    def endpoints() -> Endpoints | None:
        if signals.count:
            raise InterruptedRunError("stopped before the learner had started")
        with contextlib.suppress(LearnerUnreachableError):
            found = run.endpoints()
            return found if found.pid == learner.pid else None  # those of an earlier process
        return None

    try:
        return _first(endpoints, learner, _STEP_S / 10)
    except TimeoutError:
        raise FailedError(
            f"the learner does not listen after {_START_S:.0f} s: {learner.last_log_line()}"
        ) from None


def _first(look: Callable[[], _Found | None], process: LearnerProcess, every_s: float) -> _Found | None:
    """Return the first result of `look` that is not None; None if `process` ends successfully before.

    Raises:
        UnspoolError: `process` failed.
        TimeoutError: neither within `_START_S`.
    """
    give_up_at = time.monotonic() + _START_S
    while (exit_code := process.poll()) is None:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > give_up_at:
            raise TimeoutError
        time.sleep(every_s)
    if exit_code != 0:
        raise failure_of(exit_code, process.last_log_line())
    return None


def _start_pool(
    backend: Backend,
    run: RunDirectory,
    config: RunConfig,
    endpoints: Endpoints,
    display: Display,
    signals: StopSignals,
) -> WorkerPool:
    environment = worker_environment(config)
    identity = config.tls.of(Role.WORKER)
    tls = None if identity is None else identity.directory
    if backend.kind == "local":
        return LocalPool(
            learner=endpoints.learner,
            token_file=run.token_path(Role.WORKER).resolve(),
            logs_dir=run.path / "logs",
            environment=environment,
            tls=tls,
        )
    from workers.pools.ray_pool import ActorResources, RayPool

    wanted = config.workers
    is_elsewhere = backend.address is not None and not is_loopback(host_of(backend.address))
    if is_elsewhere and is_loopback(host_of(endpoints.learner)):
        raise FailedError(
            f"learner.host = {config.learner.host}: workers of the cluster at {backend.address} cannot reach "
            "it; set learner.host to an address of this machine, or learner.advertise to its public name"
        )
    display.note(f"waiting for Ray to start or to accept this process, {CONNECT_S:.0f} s at most")
    try:
        return RayPool(
            address=backend.address,
            learner=LearnerAccess(endpoints.learner, run.token(Role.WORKER), tls),
            run_id=run.name,
            resources=ActorResources(wanted.num_cpus, wanted.num_gpus, wanted.resources),
            environment=environment,
            logs_dir=run.path / "logs",
            is_cancelled=lambda: signals.count > 0,
        )
    except InterruptedError as error:
        raise InterruptedRunError("stopped while connecting to Ray") from error
    except (ConnectionError, TimeoutError, RuntimeError, subprocess.SubprocessError) as error:
        where = f"--address {backend.address}" if backend.address else "Ray did not start"
        raise FailedError(f"{where}: {error}") from error


def _warn_of_exposure(config: RunConfig, display: Display) -> None:
    if not is_loopback(config.learner.host) and config.tls.directory is None:
        display.note(f"learner.host = {config.learner.host}: not encrypted, as learner.insecure allows")


@contextlib.contextmanager
def _supervisor(
    run: RunDirectory, restarts: LearnerRestarts, pool: WorkerPool, admin: AdminClient, endpoints: Endpoints
) -> Iterator[Supervisor]:
    def follow(pid: int) -> str:
        """Connect to the learner process `pid`, once it listens."""
        with contextlib.suppress(LearnerUnreachableError):
            now = run.endpoints()
            if now.pid == pid:
                admin.move(now.admin)
                if now.learner != endpoints.learner:
                    return f"the learner moved to {now.learner}, workers look for it at {endpoints.learner}"
        return ""

    with contextlib.closing(pool), contextlib.closing(admin):
        fleet = Fleet(pool, admin, time.monotonic)
        supervisor = Supervisor(restarts, admin, fleet, time.monotonic, follow)
        try:
            yield supervisor
        except KeyboardInterrupt:
            supervisor.kill()
            raise


def follow_run(run: RunDirectory, supervisor: Supervisor, signals: StopSignals, display: Display) -> None:
    """Supervise until the end, showing each message once.

    Raises:
        UnspoolError: the run did not end successfully.
    """
    shown: set[str] = set()
    noted: tuple[list[str], Mapping[str, tuple[int, str]]] = [], {}
    note_supervision(run, *noted)
    has_ended = False
    while not has_ended:
        supervisor.ask_to_stop(signals.count)
        has_ended = supervisor.step()
        if supervisor.status is not None:
            display.show(supervisor.status)
        texts = [*_STOPPING[: signals.count], *supervisor.problems, *_failures(supervisor)]
        for text in dict.fromkeys(texts):
            if text not in shown:
                display.note(text)
        shown.update(texts)
        if (supervisor.problems, supervisor.ends) != noted:
            noted = supervisor.problems, supervisor.ends
            note_supervision(run, *noted)
        time.sleep(0 if has_ended else _STEP_S)


def _failures(supervisor: Supervisor) -> list[str]:
    """Return each kind of worker failure once: those reported to the learner, and those of the processes."""
    status = supervisor.status
    reports = [] if status is None else [read_report(one.failure) for one in status.failures]
    ends = [f"worker {name} ended: {last}" for name, (_, last) in supervisor.ends.items()]
    return [*(f"workers end with {report}" for report in reports), *ends]
