import json
from pathlib import Path

import pytest

from service.display.tables import evaluation_table
from service.evaluation.evaluate import INITIALISATION, META_TRAINED
from service.evaluation.evaluation_report import evaluation_report


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
    calls: list[tuple[str, int, int]] = []
    evaluation_report(str(exported), 3, 10, 0, tmp_path, lambda *call: calls.append(call))
    names = list(dict.fromkeys(name for name, _, _ in calls))
    assert names[:2] == [META_TRAINED, INITIALISATION]
    for name in names:
        done = [step for one, steps, step in calls if one == name and steps == 10]
        assert (done[0], done[-1]) == (0, 10)
        assert done == sorted(done)
