"""Tables and lines that commands print for people."""

import datetime
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from protos.unspool.v1.admin_pb2 import Event, LaneStatus, Status, WorkerStatus
from service.display.progress import duration, facts
from service.run.last_status import ENDED
from service.run.run_directory import RunDirectory, page_url
from unspool.failure_report import last_line


@dataclass(frozen=True)
class Finding:
    """One result of `unspool doctor`.

    Attributes:
        about: the subject, in a word or two.
        state: "problem" for what will not work, "warning" for what may not.
        text: the result.
        remedy: what to do about it; empty if nothing needs to be done.
    """

    about: str
    state: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""


def status_report(status: Status) -> RenderableType:
    """Return a run's status as a few lines and two tables."""
    head = Text(f"{status.run}  {status.state}  step {status.outer_step}/{status.outer_steps}", style="bold")
    lines: list[RenderableType] = [head, Text("  ".join(facts(status)))]
    if status.theta_sha256:
        lines.append(Text(f"theta {status.theta_sha256[:16]}  {duration(status.elapsed_s)} so far"))
    if status.workers_min < status.workers_max:
        lines.append(
            Text(f"workers: {status.workers_desired} of {status.workers_min} to {status.workers_max}")
        )
    if status.excluded_hosts:
        lines.append(Text(f"no workers on: {', '.join(status.excluded_hosts)}", style="red"))
    if status.HasField("checkpoint"):
        lines.append(Text(f"checkpoint of step {status.checkpoint.outer_step}: {status.checkpoint.path}"))
    if status.endpoints.get("http"):
        lines.append(Text(f"status page {page_url(status.endpoints['http'])}"))
    lines += [Text(problem, style="red") for problem in status.problems]
    lines += [
        Text(f"worker {one.name}, for {duration(one.age_s)}: {one.state}") for one in status.absent_workers
    ]
    if status.workers:
        lines.append(workers_table(status.workers))
    if status.lanes:
        lines.append(lanes_table(status.lanes))
    return Group(*lines)


def workers_table(workers: Iterable[WorkerStatus]) -> Table:
    """Return one row for each worker."""
    return _table_of(workers, _WORKER_COLUMNS)


def lanes_table(lanes: Iterable[LaneStatus]) -> Table:
    """Return one row for each lane."""
    return _table_of(lanes, _LANE_COLUMNS)


_WORKER_COLUMNS: Final[Mapping[str, Callable[[WorkerStatus], str]]] = {
    "worker": lambda worker: worker.name + (f" (relay of {worker.workers})" if worker.workers > 1 else ""),
    "state": lambda worker: worker.state.lower(),
    "process": lambda worker: f"{worker.host}:{worker.pid}",
    "lanes": lambda worker: ",".join(map(str, worker.lanes)),
    "phase": lambda worker: (
        worker.phase.lower() + (f", waiting for {worker.waiting_for}" if worker.waiting_for else "")
    ),
    "inner steps/s": lambda worker: f"{worker.inner_steps_per_s:,.0f}",
    "estimates": lambda worker: f"{worker.estimates}",
    "too late": lambda worker: f"{worker.stale_in_a_row or ''}",
    "memory": lambda worker: f"{worker.resident_bytes / 2**20:,.0f} MiB",
}
_LANE_COLUMNS: Final[Mapping[str, Callable[[LaneStatus], str]]] = {
    "lane": lambda lane: f"{lane.lane}",
    "state": lambda lane: lane.state.lower(),
    "worker": lambda lane: lane.worker,
    "seq": lambda lane: f"{lane.seq}",
    "inner step": lambda lane: f"{lane.inner_step:.0f}",
    "loss": lambda lane: f"{lane.loss:.4g}" if lane.HasField("loss") else "",
    "estimator": lambda lane: lane.estimator,
    "problem": lambda lane: last_line(lane.problem),
}


def event_line(event: Event) -> str:
    """Return an event as one line."""
    at = datetime.datetime.fromtimestamp(event.unix_time_s).astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S}  {event.level:<7}  {event.kind}: {event.text}"


def rows_table(rows: Sequence[Mapping[str, object]]) -> Table:
    """Return mappings with equal keys as a table with the keys as headings."""
    headings = tuple(rows[0]) if rows else ()
    return _table(headings, (tuple(map(_cell, row.values())) for row in rows))


def findings_table(findings: Iterable[Finding]) -> Table:
    """Return the results of `unspool doctor`, each with its remedy below."""
    table = _table(("", "", ""), ())
    table.show_header = False
    for finding in findings:
        style = {"ok": "green", "warning": "yellow", "problem": "red"}[finding.state]
        remedy = f"\n  -> {finding.remedy}" if finding.remedy else ""
        table.add_row(Text(finding.state, style=style), finding.about, finding.text + remedy)
    return table


def summary(status: Status, run: RunDirectory) -> str:
    """Return the outcome of a launched run, in one line."""
    parts = [f"{status.state.lower()} at step {status.outer_step}/{status.outer_steps}"]
    if status.elapsed_s:
        parts.append(f"after {duration(status.elapsed_s)}")
    if status.HasField("loss"):
        parts.append(f"loss {status.loss:.4g}")
    if status.theta_sha256:
        parts.append(f"theta {status.theta_sha256[:16]}")
    problems = [f"; {problem}" for problem in status.problems] if status.state in ENDED else []
    return ", ".join(parts) + f"; run directory {run.path}" + "".join(problems)


def idle_workers(workers: int, lanes: int) -> str:
    """Return a warning about workers without lanes; empty if there are none."""
    if workers <= lanes:
        return ""
    idle = f"{workers - lanes} of {workers} workers will be idle"
    return f"{idle}: there are only {lanes} lanes (aggregation.lanes)"


def next_commands(status: Status, run: RunDirectory) -> str:
    """Return the page and the commands for a run that was detached."""
    name = shlex.quote(str(run.path))
    page = [f"status page: {page_url(status.endpoints['http'])}"] if status.endpoints.get("http") else []
    commands = (f"unspool status {name} --watch", f"unspool events {name} --follow", f"unspool stop {name}")
    idle = idle_workers(status.workers_desired, len(status.lanes) or status.workers_desired)
    return "\n  ".join(["", *page, *commands]) + f"\n{idle}" * bool(idle)


def evaluation_table(report: Mapping[str, Any]) -> RenderableType:
    """Return a report of `service.evaluation.evaluation_report.evaluation_report` as a table."""
    splits = [name for name in report["optimizers"][0] if name.startswith("final_loss_")]
    finals = (f"final loss, {split.removeprefix('final_loss_')}" for split in splits)
    rows = (
        (
            row["name"],
            *(_mean_in_words(row[name]) for name in ("mean_loss", *splits)),
            f"{row['diverged_tasks']}/{report['tasks']}",
        )
        for row in report["optimizers"]
    )
    head = f"{report['tasks']} held-out tasks of {report['task_family']}, {report['steps']} inner steps"
    return Group(
        Text(f"{head} (mean ± standard error)"),
        _table(("optimizer", "mean training loss", *finals, "diverged"), rows),
        *(Text(f"picture: {path}") for path in report["pictures"]),
    )


def _table_of(items: Iterable[Any], columns: Mapping[str, Callable[[Any], str]]) -> Table:
    return _table(columns, ([cell(item) for cell in columns.values()] for item in items))


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table


def _cell(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _mean_in_words(mean: Mapping[str, float]) -> str:
    return f"{mean['mean']:.4g} ± {mean['standard_error']:.2g}"
