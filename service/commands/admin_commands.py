"""Commands on a run while it runs: list, scale, pause, repair, stop."""

from typing import Annotated

from tyro import conf

from learner.scale import WorkerRange
from protos.as_dict import as_dict
from protos.exit_codes import UsageError
from service.commands.arguments import Json, Run, Worker
from service.display import tables
from service.display.output import answer
from service.run.client import connected, events_of
from service.run.run_directory import find_run

_DRAIN_S = 60.0


def list_workers(run: Run, *, json: Json = False) -> None:
    """List the workers that the learner knows."""
    with connected(find_run(run)) as admin:
        workers = admin.status().workers
    answer([as_dict(worker) for worker in workers], json, tables.workers_table(workers))


def list_lanes(run: Run, *, json: Json = False) -> None:
    """List the lanes: who holds each, how far it is, and why if it is quarantined."""
    with connected(find_run(run)) as admin:
        lanes = admin.status().lanes
    answer([as_dict(lane) for lane in lanes], json, tables.lanes_table(lanes))


def list_events(
    run: Run,
    *,
    follow: Annotated[bool, conf.arg(help="wait for more, until the learner ends")] = False,
    json: Json = False,
) -> None:
    """List what happened, oldest first; with `--json` one object a line."""
    for event in events_of(find_run(run), follow):
        answer(as_dict(event), json, tables.event_line(event))


def scale(
    run: Run, workers: Annotated[str, conf.Positional, conf.arg(metavar="N|MIN:MAX")], *, json: Json = False
) -> None:
    """Set how many workers a run has while it runs, or let it choose from MIN to MAX.

    Lanes, and so results, stay what they are.
    """
    wanted = fewest, most = _worker_range(workers)
    with connected(find_run(run)) as admin:
        before = admin.scale(wanted)
        lanes = len(admin.status().lanes)
    facts = {"workers_before": before, "workers_min": fewest, "workers_max": most, "lanes": lanes}
    if fewest == most:
        idle = tables.idle_workers(most, lanes)
        answer({**facts, "workers": most}, json, f"workers: {before} -> {most}" + (f"; {idle}" * bool(idle)))
    else:
        answer(facts, json, f"workers: {before} -> {fewest} to {most}, as the run finds best")


def drain(run: Run, worker: Worker, *, json: Json = False) -> None:
    """Ask a worker to finish its estimate, give its lanes back and end; its supervisor starts it again."""
    with connected(find_run(run)) as admin:
        admin.drain(worker, _DRAIN_S, "drained by an operator")
    answer({"worker": worker}, json, f"{worker} drains")


def evict(run: Run, worker: Worker, *, json: Json = False) -> None:
    """Take a worker's lanes away at once and end it; its supervisor starts it afresh."""
    with connected(find_run(run)) as admin:
        admin.evict(worker, "evicted by an operator")
    answer({"worker": worker}, json, f"{worker} is evicted")


def stack(run: Run, worker: Worker, *, json: Json = False) -> None:
    """Show what every thread of a worker is doing."""
    with connected(find_run(run)) as admin:
        text = admin.stack(worker)
    answer({"worker": worker, "stack": text}, json, text)


def reset_lane(
    run: Run,
    lane: Annotated[int, conf.Positional, conf.arg(metavar="LANE")],
    *,
    fresh: Annotated[
        bool, conf.arg(help="restart its unrolls; not in sync, where theta depends on it")
    ] = False,
    json: Json = False,
) -> None:
    """Let a quarantined lane be worked on again."""
    if lane < 0:
        raise UsageError(f"reset-lane LANE = {lane}: must not be negative")
    with connected(find_run(run)) as admin:
        admin.reset_lane(lane, fresh)
    answer({"lane": lane, "fresh": fresh}, json, f"lane {lane} is worked on again")


def pause(run: Run, *, json: Json = False) -> None:
    """Hold outer updates; workers finish what they are at and wait."""
    with connected(find_run(run)) as admin:
        admin.pause()
    answer({"paused": True}, json, "paused")


def resume(run: Run, *, json: Json = False) -> None:
    """Continue outer updates after `pause`."""
    with connected(find_run(run)) as admin:
        admin.resume()
    answer({"paused": False}, json, "resumed")


def stop(
    run: Run,
    *,
    now: Annotated[bool, conf.arg(help="do not wait for the running outer step")] = False,
    json: Json = False,
) -> None:
    """End a run after the running outer step, with a checkpoint that `launch` resumes from."""
    with connected(find_run(run)) as admin:
        step = admin.stop(now)
    answer({"outer_step": step}, json, f"stopping at step {step}")


def _worker_range(said: str) -> WorkerRange:
    fewest, colon, most = said.partition(":")
    try:
        wanted = WorkerRange(int(fewest), int(most if colon else fewest))
    except ValueError:
        raise UsageError(f"scale N = {said}: must be a number of workers, or MIN:MAX") from None
    if wanted.fewest < 0:
        raise UsageError(f"scale N = {said}: must not be negative; 0 lets the run wait")
    if wanted.fewest > wanted.most:
        raise UsageError(f"scale MIN:MAX = {said}: MIN must not exceed MAX")
    return wanted
