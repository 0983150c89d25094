"""Reports of experiments: text for the terminal, and a table and a picture for the documentation."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_BAR_COLUMNS = ("bar", "verdict")
_VERDICTS = {True: "pass", False: "FAIL", None: ""}
_FIGURE_INCHES, _DOTS_PER_INCH = (6.4, 3.6), 110


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        cells: one for each column.
        bar: the criterion of the row; empty if the row is for comparison.
        passed: whether the row meets it; None if there is no bar.
    """

    cells: tuple[str, ...]
    bar: str = ""
    passed: bool | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of an experiment.

    Attributes:
        title: a heading.
        columns: names of the cells of a row.
        rows: the table.
        figure: draws the experiment's picture, or None.
        notes: Markdown above the table that describes the experiment.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[Row]
    figure: Callable[[Axes], None] | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"Result({self.title!r}): row {row.cells} has {len(row.cells)} cells for the "
                    f"{len(self.columns)} columns {self.columns}"
                )

    @property
    def failures(self) -> int:
        """Rows that miss their bar."""
        return sum(row.passed is False for row in self.rows)


def as_text(result: Result) -> str:
    """Returns the title and the table with aligned columns."""
    table = _table(result)
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)
    return "\n".join([result.title, "", *lines])


def as_markdown(result: Result, picture: str | None) -> str:
    """Returns a section: heading, notes, table, and a link to the picture.

    Args:
        result: of the experiment.
        picture: the picture's path relative to the page, or None.
    """
    image = [] if picture is None else [f"![{result.title}]({picture})"]
    notes = [result.notes] if result.notes else []
    return "\n\n".join([f"## {result.title}", *notes, markdown_table(_table(result)), *image])


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Returns the Markdown of a table whose first line is its header."""
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(lines[0]), *body])


def draw(result: Result, path: Path) -> None:
    """Write the experiment's picture to `path`.

    Raises:
        ValueError: the experiment has none.
    """
    if result.figure is None:
        raise ValueError(f"Result({result.title!r}): it has no figure")
    figure = Figure(figsize=_FIGURE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    result.figure(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def write_block(page: Path, name: str, text: str) -> None:
    """Replace the part of `page` between the markers `<!-- NAME begin -->` and `<!-- NAME end -->`.

    Raises:
        ValueError: the page does not have these markers.
    """
    begin, end = f"<!-- {name} begin -->", f"<!-- {name} end -->"
    between = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    replaced, count = between.subn(lambda _: f"\n\n{text}\n\n", page.read_text())
    if count != 1:
        raise ValueError(f"{page}: it must have one block between {begin} and {end}, but has {count}")
    page.write_text(replaced)


def _table(result: Result) -> list[tuple[str, ...]]:
    rows: Iterable[tuple[str, ...]] = ((*row.cells, row.bar, _VERDICTS[row.passed]) for row in result.rows)
    return [(*result.columns, *_BAR_COLUMNS), *rows]
