"""The cheap experiments of `make reproduce`, and its reports."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import estimator_table
from benchmarks.reproduce import b4_variance, b5_unbiasedness, report
from benchmarks.reproduce.b4_linear_system import DIM, NUM_STEPS
from benchmarks.reproduce.b8_problem import SmallLOpt

ESTIMATORS_PAGE = Path(__file__).parents[2] / "docs/estimators.md"
RESULT = report.Result(
    "Title", ("who", "what"), [report.Row(("a", "1|2"), "below 2", False), report.Row(("bcd", "3"))]
)


@pytest.mark.slow
@pytest.mark.parametrize("noise_length", [4, 64])
def test_variance_of_online_estimates_is_that_of_the_closed_form(noise_length: int) -> None:
    for losses in b4_variance.SYSTEMS.values():
        expected = losses.variance(b4_variance.WINDOW, noise_length)
        measured = b4_variance.linear_variance(noise_length, losses)
        assert measured == pytest.approx(expected, rel=b4_variance.TOLERANCE)


def test_variance_of_full_es_is_that_of_the_closed_form() -> None:
    for losses in b4_variance.SYSTEMS.values():
        expected = (DIM + 1) * np.sum(losses.gradient() ** 2)
        measured = b4_variance.linear_variance(None, losses)
        assert measured == pytest.approx(expected, rel=b4_variance.TOLERANCE)


def test_in_the_closed_form_reused_noise_has_the_lowest_variance() -> None:
    for losses in b4_variance.SYSTEMS.values():
        by_length = [losses.variance(b4_variance.WINDOW, length) for length in b4_variance.NOISE_LENGTHS]
        assert min(by_length) == losses.variance(b4_variance.WINDOW, NUM_STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("name", b5_unbiasedness.unbiased_estimators())
def test_estimates_of_influence_balancing_have_no_bias(name: str) -> None:
    row = b5_unbiasedness.unbiased_row(name)
    assert row.passed, row


@pytest.mark.slow
def test_the_bias_of_truncated_es_is_detected() -> None:
    row = b5_unbiasedness.biased_row()
    assert row.passed, row


def test_the_learned_optimizer_of_b8_has_210_weights() -> None:
    theta = SmallLOpt().init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(theta)) == 210


def test_a_missed_bar_is_counted_and_shown() -> None:
    assert RESULT.failures == 1
    assert report.as_text(RESULT).splitlines()[2:] == [
        "who  what  bar      verdict",
        "a    1|2   below 2  FAIL",
        "bcd  3",
    ]


def test_a_section_of_the_page_has_the_table_and_the_picture() -> None:
    section = report.as_markdown(RESULT, "images/it.png")
    assert section.startswith("## Title\n\n| who | what | bar | verdict |\n|---|---|---|---|\n| a | 1\\|2 |")
    assert section.endswith("![Title](images/it.png)")


def test_a_row_must_have_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="2 cells for the 1 columns"):
        report.Result("Title", ("who",), [report.Row(("a", "1"))])


def test_only_the_named_block_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- a begin -->old<!-- a end -->\n<!-- b begin -->kept<!-- b end -->\n")
    report.write_block(page, "a", r"\new")
    assert page.read_text() == (
        "above\n<!-- a begin -->\n\n\\new\n\n<!-- a end -->\n<!-- b begin -->kept<!-- b end -->\n"
    )


def test_a_page_without_the_block_is_rejected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="one block between <!-- a begin -->"):
        report.write_block(page, "a", "text")


def test_a_picture_is_small(tmp_path: Path) -> None:
    result = report.Result("Title", ("who",), [], figure=lambda axes: axes.plot([1, 2]))
    report.draw(result, tmp_path / "images/it.png")
    assert 0 < (tmp_path / "images/it.png").stat().st_size < 150_000


def test_the_python_code_of_the_estimators_page_runs() -> None:
    scope: dict[str, object] = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", ESTIMATORS_PAGE.read_text(), re.M | re.S)), scope)
    assert int(scope["estimate"].inner_steps) == 2 * 16 * 20  # type: ignore[attr-defined]


def test_the_table_of_estimators_shows_variance_relative_to_full_es() -> None:
    of_system = {
        name: estimator_table.Measured(
            0.1, 0.2, cost=2.0 + 4.0 * (name == "NRES"), memory_bytes=1024, inner_steps=20
        )
        for name in estimator_table.ESTIMATORS
    }
    lines = estimator_table.table_of({"Lorenz": of_system})
    assert {line[0]: line[2] for line in lines[1:3]} == {"`FullES`": "1", "`NRES`": "3"}


def test_every_estimator_is_on_the_estimators_page() -> None:
    page = ESTIMATORS_PAGE.read_text()
    assert [name for name in estimator_table.ESTIMATORS if f"`{name}`" not in page] == []
