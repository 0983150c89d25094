"""`make bench`: every benchmark, one after the other, or those named on the command line."""

import argparse
from collections.abc import Callable

from benchmarks import fused_scan, service

BENCHMARKS: dict[str, Callable[[float], object]] = {
    "quadratic": fused_scan.quadratic,
    "mlp": fused_scan.mlp,
    "service": service.against_in_process,
}


def main() -> None:
    """Prints one line per benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=[], help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="per block of measurement")
    arguments = parser.parse_args()
    for name in arguments.names or BENCHMARKS:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
        print(BENCHMARKS[name](arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
