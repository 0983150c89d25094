"""A simulation of workers, relays and one learner as queues, to find the load that a tree of relays sustains.

The costs of messages are measured. Each process is a queue with one server, because of Python's global lock.
A worker computes an estimate every `period_s`, and waits if its previous push is unanswered. A relay merges
as `workers.relay.pushes` does: it forwards the pushes that arrive while its own previous push is unanswered
as one push. Every theta is sent from the learner down the tree.
"""

import dataclasses
import heapq
import itertools
import random
import timeit
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks import transport
from protos import codec
from protos.unspool.v1 import learner_pb2
from workers.relay.merging import PendingPush, merged

WORKERS = (10, 100, 300, 1000, 3000, 10_000)
TREES = ((), (8,), (64,), (32, 32))
BODIES_MB = (0.01, 1.0)
ENOUGH = 0.95


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of messages, in seconds of one process unless stated.

    Attributes:
        message_s: for sending or receiving a push or a theta of any size.
        per_mb_s: for each megabyte of it.
        part_s: at the learner, for each estimate in a merged push.
        merge_per_mb_s: at a relay, for each megabyte of each push that it merges.
        hop_s: latency between two processes, which occupies neither.
        stream_mb: memory of one open stream.
    """

    message_s: float = 370e-6
    per_mb_s: float = 1.5e-3
    part_s: float = 30e-6
    merge_per_mb_s: float = 3e-3
    hop_s: float = 200e-6
    stream_mb: float = 0.1


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A cluster.

    Attributes:
        workers: number of workers that compute.
        fan_outs: children of each relay, by level from the top; empty if workers connect to the learner.
        period_s: time between the estimates of one worker.
        body_mb: size of theta and of a gradient.
        updates_per_s: how often theta is published.
        duration_s: simulated time.
    """

    workers: int
    fan_outs: tuple[int, ...] = ()
    period_s: float = 1.0
    body_mb: float = 0.01
    updates_per_s: float = 1.0
    duration_s: float = 5.0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The estimate `number` of one worker."""

    worker: int
    number: int
    made_s: float


@dataclasses.dataclass
class Process:
    """A learner or a relay: it processes one message at a time, and the others wait."""

    parent: "Process | None"
    children: int = 0
    free_s: float = 0.0
    busy_s: float = 0.0
    is_unanswered: bool = False
    waiting: list[list[Estimate]] = dataclasses.field(default_factory=list)

    def work(self, now_s: float, cost_s: float) -> float:
        """Returns when work that arrives at `now_s` and takes `cost_s` is done."""
        self.free_s = max(self.free_s, now_s) + cost_s
        self.busy_s += cost_s
        return self.free_s


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a simulation.

    Attributes:
        made: number of estimates that workers finished.
        accepted: the estimates that the learner accepted, in order.
        pushes: the number of pushes that contained them.
        learner_share: fraction of time that the learner was busy with pushes and thetas.
        relay_share: the same for the busiest relay.
        thetas_mb: megabytes of thetas that the learner sent.
        latency_s: mean time from an estimate to its acceptance.
        memory_mb: memory of the learner's streams and of its longest queue of bodies.
    """

    made: int
    accepted: tuple[Estimate, ...]
    pushes: int
    learner_share: float
    relay_share: float
    thetas_mb: float
    latency_s: float
    memory_mb: float


class Simulation:
    """A simulation of one scenario that starts with an idle cluster."""

    def __init__(self, scenario: Scenario, costs: Costs, seed: int = 0) -> None:
        self._scenario = scenario
        self._costs = costs
        self._draws = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._learner = Process(None)
        self._relays: list[Process] = []
        self._parents = self._build()
        self._made = [0] * scenario.workers
        self._accepted: list[tuple[Estimate, float]] = []
        self._pushes = self._thetas = self._queued = self._most_queued = 0

    def run(self) -> Outcome:
        """Runs the simulation for the duration of the scenario."""
        scenario = self._scenario
        for worker in range(scenario.workers):
            self._at(self._draws.uniform(0.0, scenario.period_s), lambda s, w=worker: self._make(w, s))
        self._at(0.0, self._publish)
        while self._events and self._events[0][0] <= scenario.duration_s:
            now_s, _, act = heapq.heappop(self._events)
            act(now_s)
        return self._outcome()

    def _build(self) -> list[Process]:
        """Builds the tree; returns the parent of each worker."""
        scenario = self._scenario
        counts = [scenario.workers]
        for fan_out in reversed(scenario.fan_outs):
            counts.append(-(-counts[-1] // fan_out))
        above = [self._learner]
        for count in reversed(counts[1:]):
            above = [Process(above[place * len(above) // count]) for place in range(count)]
            self._relays += above
        for relay in self._relays:
            assert relay.parent is not None
            relay.parent.children += 1
        parents = [above[worker * len(above) // scenario.workers] for worker in range(scenario.workers)]
        for parent in parents:
            parent.children += 1
        return parents

    def _at(self, due_s: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (due_s, next(self._order), act))

    def _make(self, worker: int, now_s: float) -> None:
        self._made[worker] += 1
        estimate = Estimate(worker, self._made[worker], now_s)
        self._send([estimate], self._parents[worker], now_s, lambda s: self._next(estimate, s))

    def _next(self, estimate: Estimate, answered_s: float) -> None:
        due_s = max(answered_s, estimate.made_s + self._scenario.period_s)
        self._at(due_s, lambda s: self._make(estimate.worker, s))

    def _send(
        self, parts: list[Estimate], to: Process, now_s: float, answered: Callable[[float], None]
    ) -> None:
        """Schedules the arrival, the processing and the answer of a push."""

        def arrive(arrived_s: float) -> None:
            if to is self._learner:
                self._queued += 1
                self._most_queued = max(self._most_queued, self._queued)
            cost_s = self._message_s() + (self._costs.part_s * len(parts) if len(parts) > 1 else 0.0)
            self._at(to.work(arrived_s, cost_s), done)

        def done(done_s: float) -> None:
            self._taken(to, parts, done_s)
            self._at(done_s + self._costs.hop_s, answered)

        self._at(now_s + self._costs.hop_s, arrive)

    def _taken(self, by: Process, parts: list[Estimate], now_s: float) -> None:
        if by is self._learner:
            self._queued -= 1
            self._pushes += 1
            self._accepted += [(part, now_s) for part in parts]
        else:
            by.waiting.append(parts)
            self._flush(by, now_s)

    def _flush(self, relay: Process, now_s: float) -> None:
        if relay.is_unanswered or not relay.waiting:
            return
        assert relay.parent is not None
        pushes, relay.waiting = relay.waiting, []
        relay.is_unanswered = True
        merged_mb = self._scenario.body_mb * len(pushes) if len(pushes) > 1 else 0.0
        cost_s = self._costs.merge_per_mb_s * merged_mb + self._message_s()
        parts = list(itertools.chain.from_iterable(pushes))
        sent_s = relay.work(now_s, cost_s)
        self._send(parts, relay.parent, sent_s, lambda s: self._answered(relay, s))

    def _answered(self, relay: Process, now_s: float) -> None:
        relay.is_unanswered = False
        self._flush(relay, now_s)

    def _publish(self, now_s: float) -> None:
        """Sends a theta to all children; the learner publishes the next one only after that."""
        for process in (self._learner, *self._relays):
            sent_s = process.work(now_s, process.children * self._message_s())
            if process is self._learner:
                self._thetas += process.children
                self._at(max(sent_s, now_s + 1.0 / self._scenario.updates_per_s), self._publish)

    def _message_s(self) -> float:
        return self._costs.message_s + self._costs.per_mb_s * self._scenario.body_mb

    def _outcome(self) -> Outcome:
        scenario, accepted = self._scenario, self._accepted
        span_s = scenario.duration_s
        latency_s = sum(at_s - part.made_s for part, at_s in accepted) / max(1, len(accepted))
        streams_mb = self._costs.stream_mb * self._learner.children
        return Outcome(
            made=sum(self._made),
            accepted=tuple(part for part, _ in accepted),
            pushes=self._pushes,
            learner_share=self._learner.busy_s / max(span_s, self._learner.free_s),
            relay_share=max((one.busy_s / max(span_s, one.free_s) for one in self._relays), default=0.0),
            thetas_mb=self._thetas * scenario.body_mb,
            latency_s=latency_s,
            memory_mb=streams_mb + self._most_queued * scenario.body_mb,
        )


def sustains(scenario: Scenario, outcome: Outcome) -> bool:
    """Whether the learner accepted nearly all estimates that workers without any waiting would have made."""
    wanted = scenario.workers * scenario.duration_s / scenario.period_s
    return len(outcome.accepted) >= ENOUGH * wanted


def simulated(seconds: float) -> Iterator[str]:
    """Measures the costs of messages, and yields the lines of the simulations with these costs."""
    costs = measured_costs(seconds)
    yield f"{costs}"
    for body_mb in BODIES_MB:
        yield from table(costs, body_mb)


def table(costs: Costs, body_mb: float) -> Iterator[str]:
    """Yields a line for each tree and number of workers, and the limit of each tree."""
    yield f"gradients of {body_mb:g} MB, one a second from each worker, and a theta a second"
    yield (
        f"{'relays':<8} {'workers':>7} {'accepted/s':>10} {'pushes/s':>8} {'learner':>7} {'relay':>5} "
        f"{'ingest MB/s':>11} {'thetas MB/s':>11} {'delay ms':>8} {'memory MB':>9}"
    )
    for fan_outs in TREES:
        name = " x ".join(map(str, fan_outs)) or "none"
        sustained = 0
        for workers in WORKERS:
            scenario = Scenario(workers, fan_outs, body_mb=body_mb)
            outcome = Simulation(scenario, costs).run()
            sustained = workers if sustains(scenario, outcome) else sustained
            yield row(name, scenario, outcome)
        yield f"{name:<8} sustains {sustained} workers"


def row(name: str, scenario: Scenario, outcome: Outcome) -> str:
    """Returns one line of the table."""
    per_s = 1.0 / scenario.duration_s
    return (
        f"{name:<8} {scenario.workers:>7} {len(outcome.accepted) * per_s:>10.0f} "
        f"{outcome.pushes * per_s:>8.0f} {outcome.learner_share:>7.0%} {outcome.relay_share:>5.0%} "
        f"{outcome.pushes * scenario.body_mb * per_s:>11.0f} {outcome.thetas_mb * per_s:>11.0f} "
        f"{1e3 * outcome.latency_s:>8.1f} {outcome.memory_mb:>9.0f}"
    )


def measured_costs(seconds: float) -> Costs:
    """Returns the current costs of messages on this machine."""
    cost = transport.measure_cost(seconds)
    return dataclasses.replace(
        Costs(),
        message_s=cost.small_cpu_s,
        per_mb_s=cost.cpu_s_per_mb,
        merge_per_mb_s=_merge_per_mb_s(),
    )


def _merge_per_mb_s() -> float:
    """Measures how long the mean of several gradients of one megabyte takes."""
    leaf = np.ones(250_000, np.float32)
    schema = codec.schema_of([leaf])
    push = learner_pb2.GradientEstimatorOut(weight=1.0)
    held = [PendingPush("w0", push, leaf.tobytes(), can_merge=True)] * 8
    return min(timeit.repeat(lambda: merged(held, schema), number=1, repeat=5)) / len(held)
