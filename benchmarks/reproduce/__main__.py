"""`make reproduce`: runs all experiments, or those named on the command line.

It prints a table for each experiment, writes table and figure to `docs/reproduction.md`, and exits with 1 if
a row misses its bar.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import Protocol, cast

from benchmarks.reproduce import report

EXPERIMENTS = {
    "b1": "b1_influence_balancing",
    "b2": "b2_schedule",
    "b3": "b3_lorenz",
    "b4": "b4_variance",
    "b5": "b5_unbiasedness",
    "b6": "b6_survival",
    "b7": "b7_staleness",
    "b8": "b8_learned_optimizer",
    "service": "through_service",
}
_DOCS = Path(__file__).parents[2] / "docs"


class Experiment(Protocol):
    """A module that repeats an experiment."""

    NAME: str

    def run(self, quick: bool) -> report.Result:
        """Runs the experiment; `quick` uses fewer seeds and samples, to check that it works."""


def main() -> int:
    """Runs the experiments of the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.add_argument("names", nargs="*", default=[], help=f"from {', '.join(EXPERIMENTS)}; default: all")
    parser.add_argument(
        "--quick", action="store_true", help="fewer seeds and samples; does not change the page"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"unknown experiment {unknown[0]!r}; choose from {', '.join(EXPERIMENTS)}")
    failures = sum(_reproduce(name, arguments.quick) for name in arguments.names or EXPERIMENTS)
    print("all bars are cleared" if not failures else f"{failures} rows miss their bar")
    return int(failures > 0)


def _reproduce(name: str, quick: bool) -> int:
    """Runs one experiment and reports it; returns the number of rows that miss their bar."""
    start = time.process_time()
    module = cast(Experiment, importlib.import_module(f"benchmarks.reproduce.{EXPERIMENTS[name]}"))
    result = module.run(quick)
    print(
        f"{report.as_text(result)}\n\n[{module.NAME}: {time.process_time() - start:.0f} CPU-s]\n", flush=True
    )
    if not quick:
        _document(name, result)
    return result.failures


def _document(name: str, result: report.Result) -> None:
    """Writes table and figure into the experiment's block of the page."""
    picture = None
    if result.figure is not None:
        picture = f"images/reproduce_{name}.png"
        report.draw(result, _DOCS / picture)
    report.write_block(_DOCS / "reproduction.md", name, report.as_markdown(result, picture))


if __name__ == "__main__":
    sys.exit(main())
