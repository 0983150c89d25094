"""Prometheus metrics of a run, computed from the status on each scrape."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from learner.state.lanes import LaneState
from learner.state.run_state import RunState
from learner.state.sessions import SessionStatus
from protos.unspool.v1.admin_pb2 import Status

_STALENESS_BUCKETS: Final = (0, 1, 2, 4, 8, 16, 32)


class RunMetrics(Collector):
    """Converts a status to metrics. Workers are not labels, because their number and names are unbounded."""

    def __init__(self, status: Callable[[], Status], staleness: Callable[[], dict[int, int]]) -> None:
        """Call `status` for the run's status and `staleness` for the applied gradients by staleness."""
        self._status = status
        self._staleness = staleness
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the metrics in the Prometheus text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        status = self._status()
        yield from _gauges(status)
        yield from _counters(status)
        yield _by_state(
            "unspool_workers", "Workers", SessionStatus, [worker.state for worker in status.workers]
        )
        yield _by_state("unspool_lanes", "Lanes", LaneState, [lane.state for lane in status.lanes])
        yield _by_state("unspool_run", "Run", RunState, [status.state])
        yield _histogram(self._staleness())


def _gauges(status: Status) -> Iterator[Metric]:
    yield GaugeMetricFamily("unspool_outer_step", "Outer updates behind theta", status.outer_step)
    yield GaugeMetricFamily("unspool_outer_steps", "Outer updates planned", status.outer_steps)
    yield GaugeMetricFamily("unspool_term", "Starts of the learner", status.term)
    yield GaugeMetricFamily("unspool_buffered", "Gradients waiting to be applied", status.buffered)
    yield GaugeMetricFamily("unspool_workers_desired", "Desired number of workers", status.workers_desired)
    yield GaugeMetricFamily("unspool_updates_per_second", "Rate of outer updates", status.updates_per_s)
    yield GaugeMetricFamily("unspool_problems", "Problems that need attention", len(status.problems))
    if status.HasField("loss"):
        yield GaugeMetricFamily("unspool_outer_loss", "Mean loss of the last update", status.loss)
    if status.HasField("grad_norm"):
        yield GaugeMetricFamily("unspool_grad_norm", "Norm of the last mean gradient", status.grad_norm)
    diverged = "Tasks of the last update whose loss was not finite"
    yield GaugeMetricFamily("unspool_diverged_tasks", diverged, status.diverged_tasks)
    if status.HasField("checkpoint"):
        age_s = status.checkpoint.age_s
        yield GaugeMetricFamily("unspool_checkpoint_age_seconds", "Age of the newest checkpoint", age_s)


def _counters(status: Status) -> Iterator[Metric]:
    # These two span all restarts: a restart sets them back to its checkpoint, not to zero.
    yield CounterMetricFamily("unspool_updates", "Outer updates applied", status.outer_step)
    yield CounterMetricFamily("unspool_inner_steps", "Inner training steps applied", status.inner_steps)
    pushes = CounterMetricFamily("unspool_pushes", "Verdicts on pushes", labels=["verdict"])
    for verdict, count in status.verdicts.items():
        pushes.add_metric([verdict.lower()], count)
    yield pushes
    denials = CounterMetricFamily("unspool_access_denials", "Denied callers", labels=["reason"])
    for reason, count in status.access_denials.items():
        denials.add_metric([reason], count)
    yield denials


def _by_state(
    name: str, what: str, states: type[SessionStatus | LaneState | RunState], found: list[str]
) -> Metric:
    gauge = GaugeMetricFamily(name, f"{what} by state", labels=["state"])
    for state in states:
        gauge.add_metric([state.lower()], found.count(state))
    return gauge


def _histogram(staleness: dict[int, int]) -> Metric:
    buckets = [
        (str(bound), sum(count for value, count in staleness.items() if value <= bound))
        for bound in _STALENESS_BUCKETS
    ]
    total = sum(staleness.values())
    histogram = HistogramMetricFamily("unspool_staleness", "Age of applied gradients in outer steps")
    histogram.add_metric(
        [], [*buckets, ("+Inf", total)], sum(value * count for value, count in staleness.items())
    )
    return histogram
