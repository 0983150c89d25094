"""Commands on a run while it runs: list, scale, pause, repair, stop."""

from typing import Annotated

from tyro import conf

from learner.scale import WorkerRange
from protos.exit_codes import UsageError
from protos.messages import as_dict
from protos.unspool.v1 import admin_pb2
from service.commands.arguments import Json, Run, Worker
from service.display import tables
from service.display.output import answer
from service.run.client import connected, events_of
from service.run.run_directory import find_run

_DRAIN_S = 60.0


def workers(run: Run, *, json: Json = False) -> None:
    """List the workers that the learner knows."""
    with connected(find_run(run)) as admin:
        found = admin.status().workers
    answer([as_dict(worker) for worker in found], json, tables.workers_table(found))


def lanes(run: Run, *, json: Json = False) -> None:
    """List the lanes with their workers, their progress, and the reasons of quarantines."""
    with connected(find_run(run)) as admin:
        found = admin.status().lanes
    answer([as_dict(lane) for lane in found], json, tables.lanes_table(found))


def events(
    run: Run,
    *,
    follow: Annotated[bool, conf.arg(help="wait for more, until the learner ends")] = False,
    json: Json = False,
) -> None:
    """List the events, oldest first; with `--json` one object a line."""
    for event in events_of(find_run(run), follow):
        answer(as_dict(event), json, tables.event_line(event))


def scale(
    run: Run, workers: Annotated[str, conf.Positional, conf.arg(metavar="N|MIN:MAX")], *, json: Json = False
) -> None:
    """Set the number of workers of a running run, or a range from which it chooses.

    Lanes do not change, and so results do not.
    """
    fewest, most = _worker_range(workers)
    with connected(find_run(run)) as admin:
        before = admin.ask(_scale_request(fewest, most)).workers_before
        lanes = len(admin.status().lanes)
    facts = {"workers_before": before, "workers_min": fewest, "workers_max": most, "lanes": lanes}
    if fewest == most:
        idle = tables.idle_workers(most, lanes)
        answer({**facts, "workers": most}, json, f"workers: {before} -> {most}" + (f"; {idle}" * bool(idle)))
    else:
        answer(facts, json, f"workers: {before} -> {fewest} to {most}, as the run chooses")


def drain(run: Run, worker: Worker, *, json: Json = False) -> None:
    """Ask a worker to finish its estimate, give its lanes back and end; its supervisor restarts it."""
    with connected(find_run(run)) as admin:
        admin.ask(
            admin_pb2.DrainRequest(worker_name=worker, deadline_s=_DRAIN_S, reason="drained by an admin")
        )
    answer({"worker": worker}, json, f"{worker} drains")


def evict(run: Run, worker: Worker, *, json: Json = False) -> None:
    """Take a worker's lanes away at once and end it; its supervisor restarts it."""
    with connected(find_run(run)) as admin:
        admin.ask(admin_pb2.EvictRequest(worker_name=worker, reason="evicted by an admin"))
    answer({"worker": worker}, json, f"{worker} is evicted")


def stack(run: Run, worker: Worker, *, json: Json = False) -> None:
    """Show what every thread of a worker is doing."""
    with connected(find_run(run)) as admin:
        text = admin.ask(admin_pb2.GetStackRequest(worker_name=worker)).text
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
    """Lift the quarantine of a lane."""
    if lane < 0:
        raise UsageError(f"reset-lane LANE = {lane}: must not be negative")
    with connected(find_run(run)) as admin:
        admin.ask(admin_pb2.ResetLaneRequest(lane=lane, fresh=fresh))
    answer({"lane": lane, "fresh": fresh}, json, f"lane {lane} is released from quarantine")


def pause(run: Run, *, json: Json = False) -> None:
    """Pause outer updates; workers finish their estimates and wait."""
    with connected(find_run(run)) as admin:
        admin.ask(admin_pb2.PauseRequest())
    answer({"paused": True}, json, "paused")


def resume(run: Run, *, json: Json = False) -> None:
    """Continue outer updates after `pause`."""
    with connected(find_run(run)) as admin:
        admin.ask(admin_pb2.ResumeRequest())
    answer({"paused": False}, json, "resumed")


def stop(
    run: Run,
    *,
    now: Annotated[bool, conf.arg(help="do not wait for the running outer step")] = False,
    json: Json = False,
) -> None:
    """End a run after the running outer step, with a checkpoint that `launch` resumes from."""
    with connected(find_run(run)) as admin:
        step = admin.ask(admin_pb2.StopRequest(now=now)).outer_step
    answer({"outer_step": step}, json, f"stopping at step {step}")


def _scale_request(fewest: int, most: int) -> admin_pb2.ScaleRequest:
    if fewest == most:
        return admin_pb2.ScaleRequest(workers=most)
    return admin_pb2.ScaleRequest(range=admin_pb2.WorkersRange(min=fewest, max=most))


def _worker_range(text: str) -> WorkerRange:
    fewest, colon, most = text.partition(":")
    try:
        wanted = WorkerRange(int(fewest), int(most if colon else fewest))
    except ValueError:
        raise UsageError(f"scale N = {text}: must be a number of workers, or MIN:MAX") from None
    if wanted.fewest < 0:
        raise UsageError(f"scale N = {text}: must not be negative; 0 lets the run wait")
    if wanted.fewest > wanted.most:
        raise UsageError(f"scale MIN:MAX = {text}: MIN must not exceed MAX")
    return wanted
