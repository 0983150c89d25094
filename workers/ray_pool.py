"""Workers as Ray actors. The only module that imports Ray, which places and starts them and does no more.

Everything that training needs goes through gRPC, so a worker works on while Ray's control plane is away.
"""

import contextlib
import itertools
import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.actor import WorkerActor
from workers.exits import ExitCode
from workers.pool import Exit, LearnerAccess, WorkerPool, WorkerProcess

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray tells of every killed worker on stdout, whatever its logging is set to; `poll` reports it.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
}
"""What Ray reads from the environment when it is imported, unless the user has said otherwise."""

_NAMESPACE = "unspool"
_OBJECT_STORE_BYTES = 128 * 2**20  # no gradient passes through it; Ray's default is a third of the memory
_CONTROL = "control"
_CLOSE_DEADLINE_S = 20.0


@dataclass(frozen=True)
class ActorResources:
    """What Ray has to find for each worker.

    Attributes:
        num_cpus: CPUs.
        num_gpus: GPUs, a fraction if workers share one.
        custom: of the cluster's own resources, by name.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.custom}
        return ", ".join(f"{name}: {amount:g}" for name, amount in amounts.items() if amount)


@dataclass
class _Actor:
    """One started worker: Ray's handle, what it will answer, and what it has answered."""

    handle: Any
    result: Any
    whereabouts: Any
    place: tuple[str, int] | None = None
    exit: Exit | None = None


class RayPool(WorkerPool):
    """Each worker is an actor of its own, spread over the cluster's nodes."""

    def __init__(
        self,
        *,
        address: str | None,
        learner: LearnerAccess,
        run_id: str,
        logs_dir: Path,
        resources: ActorResources,
        environment: Mapping[str, str],
        actor_class: type[Any] = WorkerActor,
    ) -> None:
        """Connect to Ray; no worker starts before `start`.

        Args:
            address: of a running cluster ("auto", or "host:port"), or None for one of this process's own.
            learner: where it is, and what lets workers in. Actors get that as arguments, which stay inside
                Ray's own trust boundary; their environment would be on Ray's dashboard.
            run_id: of the run; part of the actors' names.
            logs_dir: gets `<name>.log` of each worker on a node that can see it.
            resources: for each worker.
            environment: from `workers.bootstrap.environment`; set before an actor's process imports anything.
            actor_class: what runs in the actors.

        Raises:
            ConnectionError: there is no cluster at `address`.
        """
        self._arguments = (learner.address, learner.token, str(learner.tls or ""))
        self._run_id = run_id
        self._logs_dir = logs_dir.resolve()
        self._logs_dir.mkdir(parents=True, exist_ok=True)
        self._resources = resources
        self._environment = dict(environment)
        self._actor_class = actor_class
        self._numbers = itertools.count(1)
        self._actors: dict[str, _Actor] = {}
        self._ray = _load_ray()
        with _signal_handler_kept(signal.SIGTERM):
            _connect(self._ray, address)

    def start(self, name: str) -> None:
        if name in self._actors and self._actors[name].exit is None:
            raise ValueError(f"RayPool.start({name!r}): is running already")
        handle = (
            self._ray.remote(concurrency_groups={_CONTROL: 2})(self._actor_class)
            .options(**self._options(name))
            .remote(*self._arguments, name, self._run_id, str(self._logs_dir))
        )
        self._actors[name] = _Actor(handle, handle.run.remote(), _beside(handle.whereabouts).remote())

    def poll(self) -> Mapping[str, Exit | None]:
        for actor in self._actors.values():
            if actor.exit is None and self._is_ready(actor.result):
                actor.exit = self._exit_of(actor.result)
                # Its work is done, but the process would keep what was reserved for it.
                self._ray.kill(actor.handle, no_restart=True)
        return {name: actor.exit for name, actor in self._actors.items()}

    def kill(self, name: str) -> None:
        actor = self._actors.get(name)
        if actor is not None and actor.exit is None:
            self._ray.kill(actor.handle, no_restart=True)

    def describe(self) -> Mapping[str, WorkerProcess]:
        return {name: self._describe(actor) for name, actor in self._actors.items()}

    def stack(self, name: str, timeout_s: float = 5.0) -> str:
        """Return what every thread of a worker's process is doing.

        Raises:
            TimeoutError: it does not answer.
            ChildProcessError: it is not alive.
        """
        answer = _beside(self._actors[name].handle.stack).remote()
        try:
            return str(self._ray.get(answer, timeout=timeout_s))
        except self._ray.exceptions.GetTimeoutError as error:
            raise TimeoutError(f"worker {name}: no answer within {timeout_s:g} s") from error
        except self._ray.exceptions.RayError as error:
            raise ChildProcessError(f"worker {name}: {error}") from error

    def close(self) -> None:
        try:
            self._drain_all()
        finally:
            self._ray.shutdown()

    def _drain_all(self) -> None:
        self.poll()
        alive = [actor for actor in self._actors.values() if actor.exit is None]
        for actor in alive:
            _beside(actor.handle.drain).remote("the pool closes")
        if alive:
            self._ray.wait(
                [actor.result for actor in alive], num_returns=len(alive), timeout=_CLOSE_DEADLINE_S
            )
        self.poll()
        for name in self._actors:
            self.kill(name)

    def _options(self, name: str) -> dict[str, Any]:
        return {
            # New for each process: Ray may still be burying the last one of this worker.
            "name": f"unspool:{self._run_id}:{name}:{next(self._numbers)}",
            "namespace": _NAMESPACE,
            "num_cpus": self._resources.num_cpus,
            "num_gpus": self._resources.num_gpus,
            "resources": dict(self._resources.custom),
            # The supervisor is who starts workers again, and `run` must never be repeated behind its back.
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": self._environment},
        }

    def _describe(self, actor: _Actor) -> WorkerProcess:
        if actor.place is None and self._is_ready(actor.whereabouts):
            with contextlib.suppress(self._ray.exceptions.RayError):
                actor.place = self._ray.get(actor.whereabouts)
        host, pid = actor.place or ("", 0)
        if actor.exit is not None:
            return WorkerProcess(host, pid, "exited")
        if actor.place is None:
            return WorkerProcess(host, pid, f"waiting for Ray to find a place for it ({self._resources})")
        return WorkerProcess(host, pid, "running")

    def _is_ready(self, reference: Any) -> bool:
        ready, _ = self._ray.wait([reference], timeout=0)
        return bool(ready)

    def _exit_of(self, result: Any) -> Exit:
        try:
            return Exit(int(self._ray.get(result)), "")
        except self._ray.exceptions.RayActorError as error:
            return Exit(None, str(error), preempted=error.preempted)
        except self._ray.exceptions.RayTaskError as error:
            return Exit(ExitCode.CRASHED, str(error))


def _load_ray() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.exceptions

    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _connect(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "configure_logging": False}
    if address is not None:
        ray.init(address=address, namespace=_NAMESPACE, **quiet)
        return
    # By default Ray authenticates a new cluster, with a token that it would leave in the home directory.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(
        address="local",
        namespace=_NAMESPACE,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        **quiet,
    )


@contextlib.contextmanager
def _signal_handler_kept(number: signal.Signals) -> Iterator[None]:
    """Undo that Ray takes a signal over: what it does then is to end this process on the spot."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


def _beside(method: Any) -> Any:
    """Return an actor's method in the form that is answered while `run` runs."""
    return method.options(concurrency_group=_CONTROL)
