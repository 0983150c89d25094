from pathlib import Path

import numpy as np
import pytest

from service.evaluation.figures import draw_inner_curves, draw_outer_loss, smoothed

PNG = b"\x89PNG"


def test_the_outer_loss_is_drawn_from_the_runs_table(tmp_path: Path) -> None:
    rows = "outer_step,loss\n1,2.0\n2,nan\n3,1.0\n"
    (tmp_path / "outer.csv").write_text(rows)
    draw_outer_loss(tmp_path / "outer.csv", tmp_path / "outer.png")
    assert (tmp_path / "outer.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_starts_at_the_first_value_and_passes_over_gaps() -> None:
    np.testing.assert_allclose(smoothed(np.asarray([2.0, np.nan, 2.0])), 2.0)


def test_smoothing_is_centred_and_truncated_at_the_ends() -> None:
    line = np.arange(30.0)
    np.testing.assert_allclose(smoothed(line)[5:-5], line[5:-5])
    assert smoothed(line)[0] == pytest.approx(2.5)


def test_values_that_are_all_infinite_have_no_mean() -> None:
    assert np.isnan(smoothed(np.full(20, np.inf))).all()


@pytest.mark.parametrize("worst", [4.0, -1.0, np.nan])
def test_curves_of_diverged_tasks_are_drawn_in_a_new_folder(tmp_path: Path, worst: float) -> None:
    steps, losses = np.arange(3), np.asarray([[3.0, 2.0, 1.0], [3.0, 2.0, worst]])
    draw_inner_curves(
        {"one": (steps, losses), "two": (steps, losses)}, tmp_path / "new" / "inner.png", "title"
    )
    assert (tmp_path / "new" / "inner.png").read_bytes().startswith(PNG)


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"inner\.png"):
        draw_inner_curves({"one": (np.arange(2), np.ones((1, 2)))}, tmp_path / "file" / "inner.png", "title")
