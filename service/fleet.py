"""As many workers as the operator wants: starts, drains, restarts, and gives up on those that only crash."""

import contextlib
import dataclasses
import math
from collections.abc import Callable

from protos.unspool.v1.admin_pb2 import Status
from service.client import Admin
from service.exits import ServiceError
from workers.exits import ExitCode
from workers.pool import Exit, WorkerPool

_DRAIN_S = 60.0
_KILL_GRACE_S = 20.0


@dataclasses.dataclass(frozen=True)
class RestartPolicy:
    """What a crash costs.

    Attributes:
        first_delay_s: from the first crash to the restart; doubled by each further one.
        longest_delay_s: the delay grows no longer.
        crashes: a worker that ends as often within `window_s`, without delivering an estimate, stays down.
        window_s: how long a crash counts.
    """

    first_delay_s: float = 1.0
    longest_delay_s: float = 60.0
    crashes: int = 5
    window_s: float = 600.0


@dataclasses.dataclass
class _Slot:
    """What is known of one worker name."""

    is_running: bool = False
    is_draining: bool = False
    kill_at: float = math.inf  # finite once it is not wanted any more
    start_after: float = -math.inf
    crashes: list[float] = dataclasses.field(default_factory=list)
    problem: str = ""


class Fleet:
    """The workers of a pool, kept at the wanted number. Not thread-safe; waits for nothing."""

    def __init__(
        self,
        pool: WorkerPool,
        admin: Admin,
        clock: Callable[[], float],
        policy: RestartPolicy = RestartPolicy(),
    ) -> None:
        self._pool = pool
        self._admin = admin
        self._clock = clock
        self._policy = policy
        self._slots: dict[str, _Slot] = {}

    @property
    def running(self) -> list[str]:
        """Names of the workers that have a process."""
        return [name for name, slot in self._slots.items() if slot.is_running]

    @property
    def problems(self) -> list[str]:
        """What a person should know."""
        return [slot.problem for slot in self._slots.values() if slot.problem]

    @property
    def has_given_up(self) -> bool:
        """Whether there are workers to run and none will be started again."""
        return bool(self._slots) and all(
            slot.problem and not slot.is_running for slot in self._slots.values()
        )

    def reconcile(self, status: Status) -> None:
        """Take one step from the workers that are towards those that `status` wants."""
        self.reap()
        self._note_estimates(status)
        wanted = [f"w{number}" for number in range(status.workers_desired)]
        self._slots = {name: self._slots.get(name, _Slot()) for name in [*wanted, *self.running]}
        for name in wanted:
            self._start_if_due(name)
        for name in reversed([name for name in self.running if name not in wanted]):
            self._drain(name)

    def reap(self) -> None:
        """Note which workers have ended."""
        for name, ended in self._pool.poll().items():
            slot = self._slots.get(name)
            if slot is not None and slot.is_running and ended is not None:
                self._note_end(name, slot, ended)

    def kill(self) -> None:
        """End every worker at once."""
        for name in self.running:
            self._pool.kill(name)

    def _start_if_due(self, name: str) -> None:
        slot = self._slots[name]
        if slot.is_running or slot.problem or self._clock() < slot.start_after:
            return
        self._pool.start(name)
        slot.is_running, slot.is_draining, slot.kill_at = True, False, math.inf

    def _drain(self, name: str) -> None:
        slot, now = self._slots[name], self._clock()
        slot.kill_at = min(slot.kill_at, now + _DRAIN_S + _KILL_GRACE_S)
        if now >= slot.kill_at:
            self._pool.kill(name)
        elif not slot.is_draining:
            # Refused while it has not joined yet: asked again at the next step.
            with contextlib.suppress(ServiceError):
                self._admin.drain(name, _DRAIN_S, "scaled down")
                slot.is_draining = True

    def _note_estimates(self, status: Status) -> None:
        for worker in status.workers:
            slot = self._slots.get(worker.name)
            if slot is not None and slot.is_running and worker.estimates > 0:
                slot.crashes.clear()

    def _note_end(self, name: str, slot: _Slot, ended: Exit) -> None:
        slot.is_running = False
        if slot.kill_at < math.inf or ended.preempted:
            return  # it was drained, or its machine taken away: nobody's failure
        now, policy = self._clock(), self._policy
        slot.crashes = [*(at for at in slot.crashes if now - at < policy.window_s), now]
        delay_s = policy.first_delay_s * 2 ** (len(slot.crashes) - 1)
        slot.start_after = now + min(delay_s, policy.longest_delay_s)
        if ended.code == ExitCode.REFUSED:
            slot.problem = (
                f"worker {name} was refused by the learner, is not started again: see logs/{name}.log"
            )
        elif len(slot.crashes) >= policy.crashes:
            slot.problem = (
                f"worker {name} ended {len(slot.crashes)} times without delivering an estimate and is not "
                f"started again: see logs/{name}.log (the last time: {ended.cause})"
            )
