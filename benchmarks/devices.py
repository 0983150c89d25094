"""Updates per second of one process with its lanes divided among two host devices, compared with one device.

On a machine with two cores this shows the cost of the division rather than its benefit: XLA uses the second
core also with one device, and host devices share caches and memory. The division is meant for accelerators.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.service import CONFIG, ENVIRONMENT, WARM_UP

ROUNDS = 2


@dataclasses.dataclass(frozen=True)
class Row:
    """Updates per second by the number of devices, the best of several alternating rounds."""

    rates: dict[int, float]

    def __str__(self) -> str:
        """Returns one line."""
        one, two = self.rates[1], self.rates[2]
        return (
            f"MLP 64-32-10, 4 lanes of 8 x 20   two host devices {two:6.2f} updates/s   "
            f"one {one:6.2f} updates/s   ratio {two / one:5.2f}   ({os.cpu_count()} cores)"
        )


def two_against_one(seconds: float) -> Row:
    """Runs both sides several times in turn; `seconds` is ignored, because the number of updates is fixed."""
    del seconds
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "devices.toml"
        config.write_text(CONFIG)
        for _ in range(ROUNDS):
            for devices, of_rounds in rates.items():
                of_rounds.append(rate_of_loop(config, devices))
    return Row({devices: max(of_rounds) for devices, of_rounds in rates.items()})


def rate_of_loop(config: Path, devices: int) -> float:
    """Updates per second of `SingleMachineGradientLearner` on several host devices, in a separate process."""
    command = [sys.executable, "-m", "benchmarks.in_process", str(config), str(WARM_UP)]
    environment = ENVIRONMENT | {"JAX_NUM_CPU_DEVICES": str(devices)}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
