"""Commands on the results of a run: checkpoints, evaluation, export."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from tyro import conf

from protos.exit_codes import ExitCode
from protos.messages import as_dict
from protos.unspool.v1.admin_pb2 import SaveCheckpointRequest
from service.commands.arguments import A_RUN, Json, Run
from service.display import tables
from service.display.output import answer, report_notes
from service.display.progress import bars_on
from service.run.client import connected
from service.run.environments import pin_to, use_compilation_cache
from service.run.run_directory import find_run
from service.system_errors import naming


def list_checkpoints(run: Run, *, json: Json = False) -> None:
    """List the checkpoints that are kept, oldest first."""
    pin_to(run)
    from service.run.checkpoints import checkpoints_of

    facts = [dataclasses.asdict(one) for one in checkpoints_of(find_run(run))]
    answer(facts, json, tables.rows_table(facts))


def save_checkpoint(run: Run, *, json: Json = False) -> None:
    """Write a checkpoint now, while the run continues."""
    with connected(find_run(run)) as admin:
        saved = admin.ask(SaveCheckpointRequest())
    answer(as_dict(saved), json, f"checkpoint of step {saved.outer_step}: {saved.path}")


def verify_checkpoints(run: Run, *, json: Json = False) -> int:
    """Check every byte of the checkpoints that are kept. Exit code 74 if one is damaged."""
    pin_to(run)
    from service.run.checkpoints import checkpoints_of

    facts = [dataclasses.asdict(one) for one in checkpoints_of(find_run(run), are_verified=True)]
    answer(facts, json, tables.rows_table(facts))
    return ExitCode.CHECKPOINT if any(one["problem"] for one in facts) else ExitCode.OK


def evaluate(
    run: Annotated[str, conf.Positional, conf.arg(metavar="RUN|FILE", help=f"{A_RUN}, or an exported file")],
    *,
    tasks: Annotated[int, conf.arg(metavar="N", help="tasks to train with each optimizer")] = 16,
    steps: Annotated[
        int | None, conf.arg(metavar="N", help="inner steps; by default the longest trained on")
    ] = None,
    estimator: Annotated[int, conf.arg(metavar="I", help="take the tasks of this one of the estimators")] = 0,
    out: Annotated[Path | None, conf.arg(help="folder for pictures; by default the run's")] = None,
    json: Json = False,
) -> None:
    """Train held-out tasks with theta, with the initial theta of the run, and with Adam."""
    use_compilation_cache()
    report_notes(pin_to(run))
    from service.evaluation.evaluation_report import evaluation_report

    with bars_on(sys.stderr, are_wanted=not json) as progress:
        report = evaluation_report(run, tasks, steps, estimator, out, progress)
    answer(report, json, tables.evaluation_table(report))


def export(run: Run, *, out: Annotated[Path, conf.arg(metavar="FILE")], json: Json = False) -> None:
    """Write the theta of the newest checkpoint, with its learned optimizer, for use from optax."""
    pin_to(run)
    from service.evaluation.trained import load_trained

    trained = load_trained(run)
    with naming(out):
        out.write_bytes(trained.to_bytes())
    facts = {"path": str(out), "outer_step": trained.outer_step}
    answer(
        facts,
        json,
        f"theta of step {trained.outer_step} in {out}; load it with unspool.exported.load_exported",
    )
