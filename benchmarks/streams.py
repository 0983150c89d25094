"""The cost of idle workers, and the growth of a learner's memory with the number of pushes."""

import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.bare_learner import BareLearner, bare_learner
from benchmarks.transport import SMALL, load

STREAMS = 256
SETTLE_S, WATCH_S = 5.0, 20.0
LEGS, PROCESSES, LEG_STREAMS, LEG_PUSHES = 5, 2, 4, 2500


def idle_and_flat(seconds: float) -> Iterator[str]:
    """Measures idle streams, then 10^5 small pushes; `seconds` is ignored."""
    del seconds
    with (
        tempfile.TemporaryDirectory() as folder,
        bare_learner(folder, lanes=STREAMS, body_bytes=SMALL, batch=64) as learner,
    ):
        yield idle_streams(learner)
    lanes = PROCESSES * LEG_STREAMS
    with (
        tempfile.TemporaryDirectory() as folder,
        bare_learner(folder, lanes=lanes, body_bytes=SMALL, batch=64) as learner,
    ):
        yield memory_over_pushes(learner)


def idle_streams(learner: BareLearner) -> str:
    """Measures CPU and memory of idle streams, each with a heartbeat every five seconds."""
    before_mb = learner.resident_mb
    command = [sys.executable, "-m", "benchmarks.bare_worker", learner.address, "idle", str(STREAMS), "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(SETTLE_S)
        opened_mb, before_s = learner.resident_mb, learner.cpu_s
        time.sleep(WATCH_S)
        share, after_mb = (learner.cpu_s - before_s) / WATCH_S, learner.resident_mb
        process.stdin.close()
    return (
        f"{STREAMS} idle streams                 {100 * share:4.1f} % of a core   memory {before_mb:.0f} MB "
        f"before, {opened_mb:.0f} MB with them, {after_mb:.0f} MB {WATCH_S:.0f} s later"
    )


def memory_over_pushes(learner: BareLearner) -> str:
    """Measures memory after each fifth of 10^5 pushes; the first fifth fills the bounded buffers."""
    with contextlib.closing(load(learner.address, PROCESSES, LEG_STREAMS, LEG_PUSHES)) as legs:
        sizes = [learner.resident_mb for _ in itertools.islice(legs, LEGS)]
    pushes = LEGS * PROCESSES * LEG_STREAMS * LEG_PUSHES
    growth = sizes[-1] / sizes[0] - 1.0
    shown = ", ".join(f"{size:.0f}" for size in sizes)
    return f"memory over {pushes} pushes      {shown} MB: {100 * growth:+.1f} % after the first fifth"
