"""The service with one worker, compared with a loop in one process that computes the same theta."""

import csv
import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 2
WARM_UP, OUTER_STEPS = 10, 70
CONFIG = f"""
seed = 0
outer_steps = {OUTER_STEPS}

[learned_optimizer]
type = "MLPLOpt"

[outer_optimizer]
type = "adam"
learning_rate = 1e-3

[aggregation]
mode = "sync"
lanes = 4

[[estimators]]
type = "TruncatedPES"
trunc_length = 20
num_tasks = 8
truncation_schedule = {{ type = "LogUniformLengthSchedule", min_length = 100, max_length = 1000 }}
task_family = {{ type = "ImageMLP_Digits8_Relu32" }}
"""
# Both sides use the same number of XLA threads, which also makes their results equal to the bit.
ENVIRONMENT = {**os.environ, "PJRT_NPROC": "1", "JAX_PLATFORMS": "cpu"}


@dataclasses.dataclass(frozen=True)
class Row:
    """Updates per second of each side, the best of several alternating rounds."""

    in_process: float
    services: dict[str, float]

    def __str__(self) -> str:
        """Returns one line per backend."""
        return "\n".join(
            f"service, 1 worker ({backend:<5})    {rate:6.2f} updates/s   "
            f"in-process loop {self.in_process:6.2f} updates/s   ratio {rate / self.in_process:5.2f}"
            for backend, rate in self.services.items()
        )


def against_in_process(seconds: float) -> Row:
    """Runs both sides several times in turn; `seconds` is ignored, because the number of updates is fixed."""
    del seconds
    in_process, services = [], {"local": [0.0], "ray": [0.0]}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "service.toml"
        config.write_text(CONFIG)
        for turn in range(ROUNDS):
            in_process.append(rate_of_loop(config))
            for backend, rates in services.items():
                rates.append(rate_of_service(config, backend, Path(folder) / f"{backend}-{turn}"))
    return Row(max(in_process), {backend: max(rates) for backend, rates in services.items()})


def rate_of_loop(config: Path) -> float:
    """Updates per second of `SingleMachineGradientLearner`, in a separate process."""
    command = [sys.executable, "-m", "benchmarks.in_process", str(config), str(WARM_UP)]
    return float(subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout)


def rate_of_service(config: Path, backend: str, run_dir: Path) -> float:
    """Updates per second of a launched run, from its records of two outer steps."""
    command = [sys.executable, "-m", "service", "launch", str(config)]
    options = ["--backend", backend, "--workers", "1", "--run-dir", str(run_dir)]
    subprocess.run([*command, *options], env=ENVIRONMENT, check=True, capture_output=True)
    with (run_dir / "metrics/outer.csv").open(newline="") as file:
        times = [float(row["unix_time_s"]) for row in csv.DictReader(file)]
    return (len(times) - 1 - WARM_UP) / (times[-1] - times[WARM_UP])
