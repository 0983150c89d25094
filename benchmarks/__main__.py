"""`make bench`: runs all benchmarks, or those named on the command line."""

import argparse
from collections.abc import Callable, Iterator

from benchmarks import (
    devices,
    first_update,
    fused_scan,
    per_estimator,
    recovery,
    relay_simulation,
    scaling,
    service,
    streams,
    transport,
)

BENCHMARKS: dict[str, Callable[[float], object]] = {
    "quadratic": fused_scan.quadratic,
    "mlp": fused_scan.mlp,
    "per_estimator": per_estimator.all_estimators,
    "scaling": scaling.growth,
    "first_update": first_update.cold_and_warm,
    "devices": devices.two_against_one,
    "service": service.against_in_process,
    "transport": transport.all_parts,
    "streams": streams.idle_and_flat,
    "recovery": recovery.after_kills,
    "relays": relay_simulation.simulated,
}


def main() -> None:
    """Prints one line per benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=[], help=f"from {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of a block of measurements")
    arguments = parser.parse_args()
    for name in arguments.names or BENCHMARKS:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}; choose from {', '.join(BENCHMARKS)}")
        result = BENCHMARKS[name](arguments.seconds)
        for row in result if isinstance(result, Iterator) else [result]:
            print(row, flush=True)


if __name__ == "__main__":
    main()
