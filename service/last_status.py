"""What a run directory tells of a run whose learner cannot be asked."""

from typing import Final

from google.protobuf import json_format

from protos.unspool.v1.admin_pb2 import CheckpointInfo, Status
from service.run_directory import RunDirectory
from service.toml_document import read_tables

DOWN: Final = "DOWN"
ENDED: Final = ("FINISHED", "STOPPED", "FAILED", "UNTRAINED")


def last_status(run: RunDirectory) -> Status:
    """Return how `run` stood when it was last heard of.

    Its state is one of `ENDED` if the learner said so before it left, and `DOWN` if it had no time to.
    """
    status = status_left_behind(run)
    if status is None or status.state not in ENDED:
        status = _at_newest_checkpoint(run)
    return status


def status_left_behind(run: RunDirectory) -> Status | None:
    """Return what the learner wrote when it left, if that was its last life."""
    try:
        epoch = int((run.path / "epoch").read_text(encoding="utf-8"))
        text = (run.path / "status.json").read_text(encoding="utf-8")
        status = Status()
        json_format.Parse(text, status, ignore_unknown_fields=True)
    except (OSError, ValueError, json_format.ParseError):
        return None
    if status.epoch != epoch:
        return None
    status.endpoints.clear()  # nobody listens there any more
    return status


def _at_newest_checkpoint(run: RunDirectory) -> Status:
    from service.checkpoints import checkpoints_of  # reading checkpoints imports JAX

    status = Status(
        run=run.name,
        state=DOWN,
        waiting_for=f"its learner, which does not answer; to resume: unspool launch {run.path}",
        outer_steps=read_tables(run.config_path).get("outer_steps", 0),
    )
    readable = [one for one in checkpoints_of(run) if not one.problem]
    if readable:
        newest = readable[-1]
        status.outer_step, status.theta_sha256 = newest.outer_step, newest.theta_sha256
        status.elapsed_s, status.inner_steps = newest.elapsed_s, newest.inner_steps
        status.checkpoint.CopyFrom(
            CheckpointInfo(path=newest.path, outer_step=newest.outer_step, theta_sha256=newest.theta_sha256)
        )
    return status
