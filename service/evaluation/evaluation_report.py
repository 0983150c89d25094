"""The report of an evaluation: `evaluation.json` and two pictures."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from service.evaluation.evaluate import Contender, Progress, evaluate, trained_steps
from service.evaluation.figures import draw_inner_curves, draw_outer_loss
from service.evaluation.trained import Trained, load_trained
from service.run.run_directory import make_writable, write_atomically


def evaluation_report(
    run_or_file: str,
    num_tasks: int,
    steps: int | None,
    estimator: int,
    out: Path | None,
    progress: Progress = lambda name, steps, done: None,
) -> dict[str, Any]:
    """Evaluate a theta, draw the results, and write the report.

    Args:
        run_or_file: the run or exported theta to evaluate.
        num_tasks: number of tasks that each optimizer trains.
        steps: inner steps; None for the longest episode that theta was trained for.
        estimator: index of the estimator whose tasks are used.
        out: folder for the results; None for the run's own.
        progress: called with each optimizer's progress.

    Raises:
        UnspoolError: there is no theta, or no tasks for it.
        OSError: the results could not be written to the folder.
    """
    trained = load_trained(run_or_file)
    directory = out or trained.directory
    make_writable(directory)
    experiment = trained.experiment
    steps = steps or trained_steps(experiment, estimator)
    contenders = list(evaluate(experiment, trained.theta, num_tasks, steps, estimator, progress))
    family = experiment.estimator(estimator).task_name()
    pictures = _draw(trained, contenders, directory, title=f"{family}: {num_tasks} held-out tasks")
    report = {
        "run": trained.name,
        "outer_step": trained.outer_step,
        "task_family": family,
        "tasks": num_tasks,
        "steps": steps,
        "optimizers": [_row(contender) for contender in contenders],
        "pictures": [str(picture) for picture in pictures],
    }
    write_atomically(directory / "evaluation.json", json.dumps(report, indent=2) + "\n")
    return report


def _row(contender: Contender) -> dict[str, Any]:
    finals = {f"final_loss_{split}": mean for split, mean in contender.final_loss.items()}
    measured = {"mean_loss": contender.mean_loss, **finals}
    means = {name: dataclasses.asdict(mean) for name, mean in measured.items()}
    return {"name": contender.name, **means, "diverged_tasks": contender.diverged_tasks}


def _draw(trained: Trained, contenders: list[Contender], directory: Path, title: str) -> list[Path]:
    curves = {one.name: (one.curves["eval/xs"][0], one.curves["eval/train/loss"]) for one in contenders}
    inner = directory / "inner_curves.png"
    draw_inner_curves(curves, inner, title)
    table = trained.run.path / "metrics" / "outer.csv" if trained.run else None
    if table is None or not table.is_file():
        return [inner]
    outer = directory / "outer_loss.png"
    draw_outer_loss(table, outer)
    return [inner, outer]
