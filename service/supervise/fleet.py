"""Keeps the wanted number of workers: starts, adopts, drains and restarts them, or gives up.

`service.supervise.restart_budget` decides when one is restarted.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

from protos.exit_codes import UnspoolError
from protos.unspool.v1.admin_pb2 import AbsentWorker, DrainRequest, Status, WorkerStatus
from service.run.client import AdminClient
from service.supervise.placement import MemoryShortage, Placement
from service.supervise.restart_budget import EndKind, RestartBudget, RestartPolicy, cause_of, kind_of_exit
from workers.pools.pool import Exit, WorkerPool

DRAIN_S = 60.0
KILL_GRACE_S = 20.0
STUCK_S = 20.0
_MACHINES_POLL_S = 5.0
_POLICY: Final = RestartPolicy()
_OF_A_FLEET: Final = re.compile(r"w\d+")
_SPARE_S = 5.0  # a worker must end this long before its machine is taken away


@dataclasses.dataclass
class _Slot:
    """The state of one worker name."""

    budget: RestartBudget
    is_running: bool = False
    is_draining: bool = False
    is_preempted: bool = False  # its machine is about to be taken away, and the worker is being drained
    kill_at: float = math.inf  # finite once the worker is no longer wanted
    stuck_at: float | None = None
    was_stuck: bool = False
    changed_at: float = 0.0  # when its process started or ended


class Fleet:
    """Keeps the workers of a pool at the wanted number. Not thread-safe; never waits."""

    def __init__(
        self,
        pool: WorkerPool,
        admin: AdminClient,
        clock: Callable[[], float],
        policy: RestartPolicy = _POLICY,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._admin = admin
        self._clock = clock
        self._policy = policy
        self._slots: dict[str, _Slot] = {}
        self._shortage = MemoryShortage()
        self._excluded_hosts: frozenset[str] = frozenset()
        self._has_hosts = True
        self._desired: int | None = None
        self._foreign: set[str] = set()  # workers that this pool must not end
        self._placement = Placement(wall_clock)
        self._polled_machines_at = -math.inf

    @property
    def running(self) -> list[str]:
        """Names of the workers that have a process."""
        return [name for name, slot in self._slots.items() if slot.is_running]

    @property
    def problems(self) -> list[str]:
        """Problems to show to people."""
        given_up = [slot.budget.problem for slot in self._slots.values() if slot.budget.problem]
        hosts = ", ".join(sorted(self._excluded_hosts))
        nowhere = f"no worker is started: estimates fail on {hosts}, and there is no other machine"
        without_room = self._placement.problems
        return given_up + self._shortage.problems + without_room + [nowhere] * (not self._has_hosts)

    @property
    def ends(self) -> Mapping[str, tuple[int, str]]:
        """How many processes of each worker ended without being requested to, and how the last one ended."""
        budgets = {name: slot.budget for name, slot in self._slots.items()}
        return {name: (budget.ends, budget.last_end) for name, budget in budgets.items() if budget.ends}

    @property
    def most_workers(self) -> tuple[int, str] | None:
        """The maximum number of workers and what limits it, or None if the pool knows no limit."""
        return self._pool.most_workers()

    def absent(self, joined: Collection[str]) -> list[AbsentWorker]:
        """Return the workers that are wanted and have not `joined`, with what they wait for."""
        return [
            AbsentWorker(name=name, state=state, age_s=max(0.0, age_s))
            for name, slot in self._slots.items()
            if name not in joined
            for state, age_s in [self._absence(name, slot)]
        ]

    def _absence(self, name: str, slot: _Slot) -> tuple[str, float]:
        age_s = self._clock() - slot.changed_at
        if slot.is_running:
            return self._placement.states.get(name, ("starting", age_s))
        if slot.budget.problem:
            return f"not restarted; {slot.budget.last_end}", age_s
        left_s = max(0.0, slot.budget.start_after - self._clock())
        return f"ended, restarts in {left_s:.0f} s; {slot.budget.last_end or 'drained'}", age_s

    @property
    def has_given_up(self) -> bool:
        """Whether there are workers, none of them runs, and none will be restarted."""
        return bool(self._slots) and all(
            slot.budget.problem and not slot.is_running for slot in self._slots.values()
        )

    def reconcile(self, status: Status) -> None:
        """Take one step from the current workers towards those that `status` wants."""
        self._apply_exclusions(status)
        self.reap()
        known = {worker.name: worker for worker in status.workers}
        self._note_progress(known)
        wanted = self._wanted(status)
        self._adopt_surplus(known, wanted)
        self._slots = {name: self._slot(name) for name in [*wanted, *self.running]}
        self._pool.expect(len(wanted))
        for name in wanted:
            self._start_if_due(name, known.get(name, WorkerStatus()))
        for name in reversed([name for name in self.running if name not in wanted]):
            self._scale_down(name)
        self._poll_machines()
        self._end_stuck()

    def reap(self) -> None:
        """Record which workers have ended."""
        for name, ended in self._pool.poll().items():
            slot = self._slots.get(name)
            if slot is not None and slot.is_running and ended is not None:
                self._note_end(name, slot, ended)

    def kill(self) -> None:
        """Kill every worker."""
        for name in self.running:
            self._pool.kill(name)

    def _wanted(self, status: Status) -> list[str]:
        if status.workers_desired != self._desired:
            self._desired = status.workers_desired
            self._shortage.forget()  # a new number is tried in full
        return [f"w{number}" for number in range(self._shortage.affordable(status.workers_desired))]

    def _slot(self, name: str) -> _Slot:
        return self._slots.get(name) or _Slot(RestartBudget(name, self._policy))

    def _apply_exclusions(self, status: Status) -> None:
        hosts = frozenset(status.excluded_hosts)
        if hosts != self._excluded_hosts or not self._has_hosts:
            self._has_hosts = self._pool.avoid(hosts)
        self._excluded_hosts = hosts

    def _adopt_surplus(self, known: Mapping[str, WorkerStatus], wanted: Collection[str]) -> None:
        """Adopt workers that are not wanted: an earlier supervisor was about to end them."""
        for name in known.keys() - self._slots.keys() - self._foreign - set(wanted):
            if _OF_A_FLEET.fullmatch(name) and self._pool.adopt(name, known[name].host, known[name].pid):
                self._slots[name] = _Slot(RestartBudget(name, self._policy), is_running=True)
            else:
                self._foreign.add(name)

    def _start_if_due(self, name: str, known: WorkerStatus) -> None:
        slot = self._slots[name]
        if slot.is_running and not slot.is_draining:
            slot.kill_at = math.inf  # the worker is wanted (again)
        if slot.is_running or slot.budget.problem or self._clock() < slot.budget.start_after:
            return
        if not self._pool.adopt(name, known.host, known.pid):
            if not self._has_hosts:
                return
            self._pool.start(name)
        self._slots[name] = _Slot(slot.budget, is_running=True, changed_at=self._clock())

    def _scale_down(self, name: str) -> None:
        slot, now = self._slots[name], self._clock()
        slot.kill_at = min(slot.kill_at, now + DRAIN_S + KILL_GRACE_S)
        if now >= slot.kill_at:
            self._pool.kill(name)
        elif not slot.is_draining:
            slot.is_draining = self._drain(name, DRAIN_S, "scaled down")

    def _poll_machines(self) -> None:
        """Note workers without a machine, and drain those whose machines will be taken away."""
        now = self._clock()
        if now - self._polled_machines_at < _MACHINES_POLL_S:
            return
        self._polled_machines_at = now
        self._placement.note(self._pool.unplaced())
        for name, left_s in self._pool.draining().items():
            slot = self._slots.get(name)
            if slot is not None and slot.is_running and not slot.is_preempted:
                deadline_s = min(DRAIN_S, max(1.0, left_s - _SPARE_S))
                slot.is_preempted = self._drain(name, deadline_s, "preempted")

    def _drain(self, name: str, deadline_s: float, reason: str) -> bool:
        """Ask a worker to leave; return False if it has not joined yet, to retry at the next step."""
        try:
            self._admin.ask(DrainRequest(worker_name=name, deadline_s=deadline_s, reason=reason))
        except UnspoolError:
            return False
        return True

    def _note_progress(self, known: Mapping[str, WorkerStatus]) -> None:
        processes = self._pool.describe()
        for name, worker in known.items():
            slot, process = self._slots.get(name), processes.get(name)
            if slot is None or process is None or process.pid != worker.pid:
                continue  # not this pool's, or the session of its previous process
            if worker.estimates > 0:
                slot.budget.forgive()
            if worker.state.lower() != "stuck":
                slot.stuck_at = None
            elif slot.stuck_at is None:
                slot.stuck_at = self._clock()

    def _end_stuck(self) -> None:
        for name, slot in self._slots.items():
            if slot.is_running and slot.stuck_at is not None and self._clock() - slot.stuck_at >= STUCK_S:
                slot.was_stuck = True
                self._pool.kill(name)

    def _note_end(self, name: str, slot: _Slot, ended: Exit) -> None:
        slot.is_running, slot.changed_at = False, self._clock()
        kind, host = self._kind_of(slot, ended), self._host_of(name)
        if kind is EndKind.REFUSED and host in self._excluded_hosts:
            kind = EndKind.EVICTED  # the fault is the machine's, not the worker's
        if ended.out_of_memory:
            self._shortage.note(host)
        if slot.was_stuck:
            ended = dataclasses.replace(ended, cause=f"stuck for {STUCK_S:.0f} s, {cause_of(ended)}")
        slot.budget.charge(kind, ended, self._clock())

    def _kind_of(self, slot: _Slot, ended: Exit) -> EndKind:
        if slot.kill_at < math.inf:
            return EndKind.ASKED
        if slot.is_preempted:
            return EndKind.PREEMPTED
        return kind_of_exit(ended)

    def _host_of(self, name: str) -> str:
        process = self._pool.describe().get(name)
        return "" if process is None else process.host
