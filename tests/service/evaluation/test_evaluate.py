import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from protos.exit_codes import RunNotFoundError, UsageError
from service.display.tables import evaluation_table
from service.evaluation.evaluate import INITIALISATION, META_TRAINED, Mean, evaluate, trained_steps
from service.evaluation.evaluation_report import evaluation_report
from service.evaluation.figures import draw_outer_loss, smoothed
from service.evaluation.trained import load_trained
from tests.unspool.test_experiment import TEXT, tables, walk
from unspool.experiment import Experiment
from unspool.exported import exported_bytes

GOOD_THETA = {"log_lr": np.float32(np.log(0.2))}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    path = tmp_path / "theta.safetensors"
    path.write_bytes(exported_bytes(GOOD_THETA, TEXT, {"run": "walkabout", "outer_step": "12"}))
    return path


def test_another_file_is_neither_run_nor_theta(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(RunNotFoundError, match="neither a run nor an exported theta"):
        load_trained(str(tmp_path / "other"))


def test_a_good_theta_beats_its_initialisation_on_held_out_tasks() -> None:
    contenders = {one.name: one for one in evaluate(Experiment.from_toml(TEXT), GOOD_THETA, 4, 30)}
    trained, initial = contenders[META_TRAINED], contenders[INITIALISATION]
    assert trained.final_loss["train"].mean < 0.1 * initial.final_loss["train"].mean
    assert len(contenders) == 3


def test_all_optimizers_begin_with_the_same_tasks() -> None:
    contenders = list(evaluate(Experiment.from_toml(TEXT), GOOD_THETA, 4, 20))
    for one in contenders[1:]:
        first, other = contenders[0].curves["eval/train/loss"], one.curves["eval/train/loss"]
        np.testing.assert_allclose(first[:, 0], other[:, 0], rtol=1e-6)


@pytest.mark.parametrize(("estimator", "steps"), [(0, 30), (1, 20)])
def test_tasks_are_trained_as_long_as_in_meta_training(estimator: int, steps: int) -> None:
    assert trained_steps(Experiment.from_toml(TEXT), estimator) == steps


def test_a_system_without_tasks_cannot_be_evaluated() -> None:
    without = {name: table for name, table in tables().items() if name != "learned_optimizer"}
    experiment = Experiment.from_tables({**without, "estimators": [walk()]})
    with pytest.raises(UsageError, match="needs a task_family"):
        list(evaluate(experiment, {"stride": np.ones(2)}, 2, 10))


def test_means_leave_out_what_diverged() -> None:
    mean = Mean.of(np.asarray([1.0, 3.0, np.nan, np.inf]))
    assert (mean.mean, mean.standard_error) == (2.0, pytest.approx(1.0))


def test_results_that_could_not_be_written_are_refused_before_anything_is_trained(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "service.evaluation.evaluation_report.evaluate", lambda *arguments: pytest.fail("trained")
    )
    (tmp_path / "out").touch()
    with pytest.raises(FileExistsError, match="out"):
        evaluation_report(str(exported), num_tasks=3, steps=10, estimator=0, out=tmp_path / "out")


def test_a_report_is_written_with_its_pictures(exported: Path, tmp_path: Path) -> None:
    report = evaluation_report(str(exported), num_tasks=3, steps=10, estimator=0, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == report
    assert all(Path(picture).read_bytes().startswith(b"\x89PNG") for picture in report["pictures"])
    assert [row["name"] for row in report["optimizers"]][:2] == [META_TRAINED, INITIALISATION]
    assert evaluation_table(report)


def test_progress_reaches_the_last_step_of_every_optimizer(exported: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    evaluation_report(str(exported), 3, 10, 0, tmp_path, lambda *said: told.append(said))
    names = list(dict.fromkeys(name for name, _, _ in told))
    assert names[:2] == [META_TRAINED, INITIALISATION]
    for name in names:
        done = [step for one, steps, step in told if one == name and steps == 10]
        assert (done[0], done[-1]) == (0, 10)
        assert done == sorted(done)


def test_the_outer_loss_is_drawn_from_the_runs_table(tmp_path: Path) -> None:
    rows = "outer_step,loss\n1,2.0\n2,nan\n3,1.0\n"
    (tmp_path / "outer.csv").write_text(rows)
    draw_outer_loss(tmp_path / "outer.csv", tmp_path / "outer.png")
    assert (tmp_path / "outer.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_starts_at_the_first_value_and_passes_over_gaps() -> None:
    np.testing.assert_allclose(smoothed(np.asarray([2.0, np.nan, 2.0])), 2.0)


def test_what_is_exported_of_a_file_is_the_same_file_again(exported: Path) -> None:
    again = load_trained(str(exported)).to_bytes()
    exported.write_bytes(again)
    assert load_trained(str(exported)).to_bytes() == again
    assert tomllib.loads(load_trained(str(exported)).experiment_toml)["seed"] == 3
