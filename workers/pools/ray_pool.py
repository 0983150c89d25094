"""Workers as Ray actors. The only module that imports Ray, which only places and starts the workers.

All training traffic uses gRPC, so workers continue while Ray's control plane is unavailable.
"""

import atexit
import contextlib
import hashlib
import itertools
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protos.exit_codes import ExitCode
from workers.pools.actor import WorkerActor
from workers.pools.autoscaler_hint import AutoscalerHint
from workers.pools.pool import Exit, LearnerAccess, WorkerPool, WorkerProcess
from workers.pools.ray_connection import NAMESPACE, connect, set_environment
from workers.pools.ray_host import driver_search, host_class
from workers.pools.ray_nodes import DrainingNodes, alive, elsewhere, has_others, has_place
from workers.pools.ray_room import most_that_fit, shortage

_CONTROL = "control"
_CONTROL_THREADS = 4
_CLOSE_DEADLINE_S = 20.0
_DIGITS = 8
_ANSWER_S = 5.0
_OUTCOME_S = 2.0  # how long one call of `outcome` occupies a thread of the actor


@dataclass(frozen=True)
class ActorResources:
    """Resources of each worker.

    Attributes:
        num_cpus: CPUs.
        num_gpus: GPUs, a fraction if workers share one.
        custom: amounts of the cluster's custom resources, by name.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)

    @property
    def bundle(self) -> dict[str, float]:
        """The same as a Ray bundle."""
        return {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.custom}

    def __str__(self) -> str:
        return ", ".join(f"{name}: {amount:g}" for name, amount in self.bundle.items() if amount)


@dataclass
class _Actor:
    """One worker: Ray's handle, references to pending answers, and the answers received."""

    handle: Any
    result: Any
    location: Any
    is_adopted: bool = False
    place: tuple[str, int] | None = None
    exit: Exit | None = None


class RayPool(WorkerPool):
    """Runs each worker as an actor, spread over the cluster's nodes.

    On an existing cluster, actors outlive this process, and a later pool of the same run adopts them. On a
    cluster that this process has started, everything ends with it.
    """

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
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Connect to Ray; no worker starts before `start`.

        Args:
            address: of a running cluster ("auto", or "host:port"), or None to start one for this process.
            learner: address and credentials. Actors receive them as arguments, which stay inside Ray's trust
                boundary; environment variables would be visible on Ray's dashboard.
            run_id: of the run; part of the actors' names.
            logs_dir: gets `<name>.log` of each worker on a node that can see it.
            resources: for each worker.
            environment: from `workers.bootstrap.environment`; set before an actor's process imports anything.
            actor_class: the class that runs in the actors.
            is_cancelled: polled while Ray connects; the attempt is abandoned when it returns True.

        Raises:
            ConnectionError: there is no cluster at `address`.
            TimeoutError: Ray has not answered or started in time.
            InterruptedError: `is_cancelled` returned True.
        """
        self._arguments = (learner.address, learner.token, str(learner.tls or ""))
        self._run_id = run_id
        # Runs of the same name may share a cluster; their tokens distinguish them.
        digest = hashlib.sha256(learner.token.encode()).hexdigest()
        self._prefix = f"unspool:{run_id}-{digest[:_DIGITS]}:"
        self._logs_dir = logs_dir.resolve()
        self._logs_dir.mkdir(parents=True, exist_ok=True)
        self._resources = resources
        self._environment = dict(environment)
        self._actor_class = actor_class
        self._avoided: frozenset[str] = frozenset()
        self._actors: dict[str, _Actor] = {}
        self._known: set[str] = set()  # Ray's names of the actors that this pool has had
        self._ray = _load_ray()
        connect(self._ray, address, is_cancelled)
        self._is_detached = address is not None
        self._numbers = itertools.count(1 + max(map(_number_of, self._named_actors()), default=0))
        self._draining = DrainingNodes(self._ray)
        self._hint = AutoscalerHint(_request_resources, resources.bundle, time.monotonic)
        atexit.register(self._hint.release)

    def start(self, name: str) -> None:
        if self._is_alive(name):
            raise ValueError(f"RayPool.start({name!r}): is running already")
        # A new name for each process: Ray may not have removed the worker's last actor yet.
        actor_name = f"{self._prefix}{name}:{next(self._numbers)}"
        place = self._actor_class.__module__, self._actor_class.__name__
        handle = (
            self._ray.remote(concurrency_groups={_CONTROL: _CONTROL_THREADS})(host_class())
            .options(name=actor_name, **self._options())
            .remote(driver_search(), place, *self._arguments, name, self._run_id, str(self._logs_dir))
        )
        self._known.add(actor_name)
        self._actors[name] = _Actor(handle, handle.run.remote(), _beside(handle.location).remote())

    def adopt(self, name: str, host: str, pid: int) -> bool:
        if self._is_alive(name):
            return True
        # Actors that this pool has had have ended; Ray has only not removed them yet.
        found = [one for one in self._named_actors(name) if one not in self._known]
        for actor_name in sorted(found, key=_number_of, reverse=True):
            self._known.add(actor_name)
            with contextlib.suppress(ValueError):  # it has ended since
                handle = self._ray.get_actor(actor_name, namespace=NAMESPACE)
                if self._looks_here(handle, (host, pid)):
                    location = _beside(handle.location).remote()
                    self._actors[name] = _Actor(handle, _outcome_of(handle), location, is_adopted=True)
                    return True
                self._ray.kill(handle, no_restart=True)
        return False

    def avoid(self, hosts: Collection[str]) -> bool:
        self._avoided = frozenset(hosts)
        return not hosts or has_others(self._ray, hosts)

    def draining(self) -> Mapping[str, float]:
        names = {
            actor.handle._actor_id.hex(): name for name, actor in self._actors.items() if actor.exit is None
        }
        left = self._draining.seconds_left(names, time.time())
        return {names[actor_id]: seconds for actor_id, seconds in left.items()}

    def expect(self, workers: int) -> None:
        if self._is_detached:
            self._hint.ask(workers)

    def unplaced(self) -> Mapping[str, str]:
        waiting = [
            name
            for name, actor in self._actors.items()
            if actor.exit is None
            and not actor.is_adopted
            and not self._is_ready(actor.location)
            and not has_place(self._ray, actor.handle._actor_id.hex())
        ]
        return dict.fromkeys(waiting, self._shortage()) if waiting else {}

    def _shortage(self) -> str:
        nodes = [node["Resources"] for node in alive(self._ray)]
        return shortage(self._bundle, nodes, self._ray.available_resources())

    def most_workers(self) -> tuple[int, str] | None:
        """Return the limit of a cluster started by this process, which never grows."""
        if self._is_detached:
            return None
        return most_that_fit(self._bundle, self._ray.cluster_resources())

    def poll(self) -> Mapping[str, Exit | None]:
        for actor in self._actors.values():
            if actor.exit is None and self._is_ready(actor.result):
                actor.exit = self._exit_of(actor)
                if actor.exit is None:
                    actor.result = _outcome_of(actor.handle)
                else:
                    # Its work is done, but the process would keep its resources for a while.
                    self._ray.kill(actor.handle, no_restart=True)
        return {name: actor.exit for name, actor in self._actors.items()}

    def kill(self, name: str) -> None:
        actor = self._actors.get(name)
        if actor is not None and actor.exit is None:
            self._ray.kill(actor.handle, no_restart=True)

    def describe(self) -> Mapping[str, WorkerProcess]:
        return {name: self._describe(actor) for name, actor in self._actors.items()}

    def stack(self, name: str, timeout_s: float = 5.0) -> str:
        """Return the stack of every thread of a worker's process.

        Raises:
            TimeoutError: the worker does not answer.
            ChildProcessError: the worker is not alive.
        """
        answer = _beside(self._actors[name].handle.stack).remote()
        try:
            return str(self._ray.get(answer, timeout=timeout_s))
        except self._ray.exceptions.GetTimeoutError as error:
            raise TimeoutError(f"worker {name}: no answer within {timeout_s:g} s") from error
        except self._ray.exceptions.RayError as error:
            raise ChildProcessError(f"worker {name}: {error}") from error

    def close(self) -> None:
        atexit.unregister(self._hint.release)
        try:
            self._hint.release()
            self._drain_all()
            self._end_strays()
        finally:
            self._ray.shutdown()

    def _drain_all(self) -> None:
        self.poll()
        for actor in self._alive():
            _beside(actor.handle.drain).remote("the pool closes")
        give_up_at = time.monotonic() + _CLOSE_DEADLINE_S
        while (alive := self._alive()) and time.monotonic() < give_up_at:
            self._ray.wait([actor.result for actor in alive], num_returns=len(alive), timeout=_OUTCOME_S)
            self.poll()
        for name in self._actors:
            self.kill(name)

    def _looks_here(self, handle: Any, joined: tuple[str, int]) -> bool:
        """Whether a worker looks for its learner at this pool's address, or is the one that has `joined`."""
        with contextlib.suppress(self._ray.exceptions.RayError, TimeoutError):
            answer = _beside(handle.location).remote()
            host, pid, learner = self._ray.get(answer, timeout=_ANSWER_S)
            return learner == self._arguments[0] or (host, pid) == joined
        return False

    def _end_strays(self) -> None:
        """Kill actors of earlier supervisors of this run that were not adopted: they are no longer wanted."""
        for actor_name in set(self._named_actors()) - self._known:
            with contextlib.suppress(ValueError):  # it has ended since
                handle = self._ray.get_actor(actor_name, namespace=NAMESPACE)
                self._ray.kill(handle, no_restart=True)

    @property
    def _bundle(self) -> dict[str, float]:
        """The resources that Ray must find for a worker on this cluster."""
        # On a cluster started by this process, CPUs do not limit the number of workers: they share the
        # machine.
        return self._resources.bundle | ({} if self._is_detached else {"CPU": 0.0})

    def _alive(self) -> list[_Actor]:
        return [actor for actor in self._actors.values() if actor.exit is None]

    def _is_alive(self, name: str) -> bool:
        return name in self._actors and self._actors[name].exit is None

    def _named_actors(self, name: str | None = None) -> list[str]:
        """Ray's names of the run's living actors, or of those of one worker."""
        prefix = self._prefix if name is None else f"{self._prefix}{name}:"
        return [one for one in self._ray.util.list_named_actors() if one.startswith(prefix)]

    def _options(self) -> dict[str, Any]:
        return {
            "namespace": NAMESPACE,
            "lifetime": "detached" if self._is_detached else None,
            "num_cpus": self._bundle["CPU"],
            "num_gpus": self._resources.num_gpus,
            "resources": dict(self._resources.custom),
            # Only the supervisor restarts workers; Ray must never repeat `run` by itself.
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD",
            "label_selector": elsewhere(self._ray, self._avoided),
            "runtime_env": {"env_vars": self._environment},
        }

    def _describe(self, actor: _Actor) -> WorkerProcess:
        if actor.place is None and self._is_ready(actor.location):
            with contextlib.suppress(self._ray.exceptions.RayError):
                host, pid, _ = self._ray.get(actor.location)
                actor.place = host, pid
        host, pid = actor.place or ("", 0)
        if actor.exit is not None:
            return WorkerProcess(host, pid, "exited")
        if actor.place is None:
            return WorkerProcess(host, pid, f"waiting for Ray to find a place for it ({self._resources})")
        return WorkerProcess(host, pid, "running")

    def _is_ready(self, reference: Any) -> bool:
        ready, _ = self._ray.wait([reference], timeout=0)
        return bool(ready)

    def _exit_of(self, actor: _Actor) -> Exit | None:
        errors = self._ray.exceptions
        try:
            ended = self._ray.get(actor.result)
            return None if ended is None else Exit.with_note(*ended)
        except errors.OutOfMemoryError as error:
            return Exit(None, str(error), out_of_memory=True)
        except errors.RayActorError as error:
            if actor.is_adopted and isinstance(error, errors.ActorUnavailableError):
                return None  # only the call was lost
            return Exit(None, str(error), preempted=error.preempted)
        except errors.RayTaskError as error:
            return Exit(ExitCode.FAILED, str(error))


def _load_ray() -> Any:
    set_environment()
    import ray
    import ray.exceptions

    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def _request_resources(bundles: list[dict[str, float]]) -> None:
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


def _beside(method: Any) -> Any:
    """Return an actor's method in the concurrency group that is served while `run` runs."""
    return method.options(concurrency_group=_CONTROL)


def _outcome_of(handle: Any) -> Any:
    return _beside(handle.outcome).remote(_OUTCOME_S)


def _number_of(actor_name: str) -> int:
    """Return the number at the end of an actor's name, or 0."""
    number = actor_name.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0
