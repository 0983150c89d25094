"""Time from the start of a process to its first outer update of the MLP problem: imports and compilation.

`python -m benchmarks.first_update` runs in that process and prints the seconds of each part.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Seconds of one process, in the order of its parts."""

    imports: float
    init: float
    update: float
    cpu: float

    def __str__(self) -> str:
        wall = self.imports + self.init + self.update
        return (
            f"{wall:5.1f} s: import {self.imports:4.1f}, init {self.init:4.1f}, "
            f"update {self.update:4.1f}; CPU time {self.cpu:5.1f} s"
        )


def cold_and_warm(seconds: float) -> Iterator[str]:
    """Starts a process with an empty compilation cache and one with a filled cache; `seconds` is ignored."""
    del seconds
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm cache"):
            yield f"first update, {name:<19} {in_fresh_process(cache)}"


def in_fresh_process(cache: str) -> Seconds:
    """Runs this module with JAX's compilation cache at `cache`."""
    variables = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "benchmarks.first_update"]
    out = subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout
    return Seconds(**json.loads(out))


def measure() -> Seconds:
    """Imports the library and computes one update in this process."""
    marks = [time.perf_counter()]
    import jax

    from benchmarks.fused_scan import mlp_learner

    marks.append(time.perf_counter())
    learner = mlp_learner()
    key = jax.random.PRNGKey(0)
    state = jax.block_until_ready(learner.init(key))
    marks.append(time.perf_counter())
    jax.block_until_ready(learner.update(state, key))
    marks.append(time.perf_counter())
    parts = [after - before for before, after in itertools.pairwise(marks)]
    return Seconds(*parts, cpu=time.process_time())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dataclasses.asdict(measure())))
