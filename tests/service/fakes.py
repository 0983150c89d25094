"""Fakes of a learner, an admin connection and a worker pool."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from protos.exit_codes import ExitCode, LearnerUnreachableError, RefusedError, UsageError
from protos.unspool.v1.admin_pb2 import (
    CheckpointInfo,
    DrainRequest,
    GetStackReply,
    GetStackRequest,
    ListEventsReply,
    ListEventsRequest,
    SaveCheckpointRequest,
    ScaleReply,
    ScaleRequest,
    Status,
    StopReply,
    StopRequest,
    WorkerStatus,
)
from workers.pools.pool import Exit, WorkerPool, WorkerProcess


class FakePool(WorkerPool):
    """A pool whose processes run until the test ends them."""

    def __init__(self) -> None:
        self.exits: dict[str, Exit | None] = {}
        self.started: list[str] = []
        self.killed: list[str] = []
        self.orphans: set[str] = set()
        self.avoided: set[str] = set()
        self.has_other_hosts = True
        self.doomed: dict[str, float] = {}
        self.expected: list[int] = []
        self.without_room: dict[str, str] = {}
        self.limit: tuple[int, str] | None = None

    def start(self, name: str) -> None:
        assert self.exits.get(name, Exit(0, "")) is not None, f"{name} is running already"
        self.started.append(name)
        self.exits[name] = None

    def adopt(self, name: str, host: str, pid: int) -> bool:
        if name in self.orphans:
            self.orphans.remove(name)
            self.exits[name] = None
            return True
        return False

    def avoid(self, hosts: Collection[str]) -> bool:
        self.avoided = set(hosts)
        return not hosts or self.has_other_hosts

    def draining(self) -> Mapping[str, float]:
        return dict(self.doomed)

    def expect(self, workers: int) -> None:
        self.expected.append(workers)

    def unplaced(self) -> Mapping[str, str]:
        return dict(self.without_room)

    def most_workers(self) -> tuple[int, str] | None:
        return self.limit

    def poll(self) -> Mapping[str, Exit | None]:
        return dict(self.exits)

    def kill(self, name: str) -> None:
        self.killed.append(name)
        self.end(name, None, "killed by SIGKILL")

    def describe(self) -> Mapping[str, WorkerProcess]:
        return {name: WorkerProcess("here", 1, "running") for name in self.exits}

    def close(self) -> None:
        self.exits.clear()

    def end(self, name: str, code: int | None = ExitCode.FAILED, cause: str = "crashed") -> None:
        self.exits[name] = Exit(code, cause)

    def run_out_of_memory(self, name: str) -> None:
        self.exits[name] = Exit(None, "out of memory", out_of_memory=True)

    def preempt(self, name: str) -> None:
        self.exits[name] = Exit(None, "the machine is gone", preempted=True)

    @property
    def running(self) -> list[str]:
        return sorted(name for name, ended in self.exits.items() if ended is None)


class FakeAdmin:
    """An admin connection that returns a given status and records the requests."""

    def __init__(self, workers_desired: int = 0) -> None:
        self.answer = Status(run="run", state="RUNNING", workers_desired=workers_desired)
        self.is_reachable = True
        self.refusal = ""
        self.requests: list[Any] = []
        self.joined: set[str] | None = None

    def status(self) -> Status:
        self._check()
        return self.answer

    def watch(self, interval_s: float) -> Iterator[Status]:
        yield self.status()

    def ask(self, request: Any) -> Any:
        self._check()
        worker = getattr(request, "worker_name", "")
        if worker and self.joined is not None and worker not in self.joined:
            raise UsageError(f"no worker {worker}")
        self.requests.append(request)
        match request:
            case ScaleRequest():
                before = self.answer.workers_desired
                self.answer.workers_desired = request.workers or request.range.max
                return ScaleReply(workers_before=before)
            case GetStackRequest():
                return GetStackReply(text=f"the stack of {worker}")
            case SaveCheckpointRequest():
                return CheckpointInfo(path="checkpoints/step-7", outer_step=7)
            case ListEventsRequest():
                return ListEventsReply()
        return StopReply()

    def asked(self, kind: type) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]

    @property
    def drained(self) -> list[str]:
        return [request.worker_name for request in self.asked(DrainRequest)]

    @property
    def stops(self) -> list[bool]:
        return [request.now for request in self.asked(StopRequest)]

    def sees(self, *workers: str, estimates: int = 0, state: str = "active") -> None:
        del self.answer.workers[:]
        self.answer.workers.extend(
            WorkerStatus(name=name, estimates=estimates, state=state, host="here", pid=1) for name in workers
        )

    def _check(self) -> None:
        if self.refusal:
            raise RefusedError(self.refusal)
        if not self.is_reachable:
            raise LearnerUnreachableError("no answer")


class FakeLearner:
    """A fake learner process."""

    def __init__(self, pid: int = 1) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        self.was_killed = False
        self.terminations = 0

    def poll(self) -> int | None:
        return self.exit_code

    def terminate(self) -> None:
        self.terminations += 1

    def last_log_line(self) -> str:
        return "the last line of its log"

    def kill(self) -> None:
        self.was_killed = True
        self.exit_code = -9

    def end(self) -> None:
        self.exit_code = 0
