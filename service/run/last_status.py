"""The status of a run whose learner does not answer, from its run directory."""

import json
import shlex
from typing import Final

from google.protobuf import json_format

from learner.storage.files import is_locked
from learner.storage.ownership import read_term
from protos.unspool.v1.admin_pb2 import Status
from service.config.toml_document import read_tables
from service.run.run_directory import RunDirectory, with_new_names
from service.run.supervision import is_supervised

DOWN: Final = "DOWN"
ENDED: Final = ("FINISHED", "STOPPED", "FAILED", "UNTRAINED")


def last_status(run: RunDirectory) -> Status:
    """Return the last known status of `run`.

    Its state is one of `ENDED` if the learner stored it before it exited, and `DOWN` otherwise.
    """
    status = stored_status(run)
    if status is None or status.state not in ENDED:
        status = _at_newest_checkpoint(run)
    return status


def advice(run: RunDirectory) -> str:
    """Return the state of a run whose learner does not answer, and the command that continues it."""
    again = f"unspool launch {shlex.quote(str(run.path))}"
    status = stored_status(run)
    if is_locked(run.path / "LOCK"):
        return "its learner is running but does not answer: it is starting or hangs; try again in a moment"
    if status is None or status.state not in ENDED:
        if is_supervised(run):
            return "its supervisor is starting it; try again in a moment"
        return f"it is down; to resume it: {again}"
    ended = f"it has ended, {status.state.lower()} at step {status.outer_step}/{status.outer_steps}"
    if status.outer_step >= status.outer_steps:
        again += f" --set outer_steps={2 * status.outer_steps}"
        return f"{ended}; to train on, for example: {again}"
    return f"{ended}; to resume it: {again}"


def stored_status(run: RunDirectory) -> Status | None:
    """Return the status that the newest learner process stored when it ended, or None."""
    try:
        term = read_term(run.path)
        fields = json.loads((run.path / "status.json").read_text(encoding="utf-8"))
        status = Status()
        json_format.ParseDict(with_new_names(fields), status, ignore_unknown_fields=True)
    except (OSError, ValueError, AttributeError, json_format.ParseError):
        return None
    if status.term != term:
        return None
    status.endpoints.clear()  # it no longer listens
    return status


def _at_newest_checkpoint(run: RunDirectory) -> Status:
    from service.run.checkpoints import checkpoints_of

    status = Status(
        run=run.name,
        state=DOWN,
        waiting_for=f"its learner, which does not answer: {advice(run)}",
        outer_steps=read_tables(run.config_path).get("outer_steps", 0),
    )
    readable = [one for one in checkpoints_of(run) if not one.problem]
    if readable:
        newest = readable[-1]
        status.outer_step, status.theta_sha256 = newest.outer_step, newest.theta_sha256
        status.elapsed_s, status.inner_steps = newest.elapsed_s, newest.inner_steps
        status.checkpoint.path, status.checkpoint.outer_step = newest.path, newest.outer_step
        status.checkpoint.theta_sha256 = newest.theta_sha256
    return status
