"""The cost of transport to the learner: large pushes, small pushes, many small pushes, and their parts.

The learner is complete except for the outer update (`benchmarks.bare_learner`). Ratios compare both sides in
turn, in one run.
"""

import contextlib
import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Generator, Iterator

import numpy as np

from benchmarks.bare_learner import BareLearner, bare_learner
from benchmarks.bare_worker import BareWorker
from benchmarks.raw_socket import raw_socket
from protos import codec
from protos.unspool.v1.learner_pb2 import WorkerMessage

LARGE, SMALL = 32 << 20, 10 << 10
CHUNK = 512 << 10
ROUNDS = 6
PROCESSES, STREAMS, PUSHES = 2, 4, 500


@dataclasses.dataclass(frozen=True)
class PushCost:
    """The cost of pushes, for models of larger systems.

    Attributes:
        small_cpu_s: CPU time of the learner for one push of 10 KiB.
        cpu_s_per_mb: CPU time of the learner for each further megabyte of a push.
        small_p50_s: median time until an idle learner accepts a push of 10 KiB.
    """

    small_cpu_s: float
    cpu_s_per_mb: float
    small_p50_s: float


def all_parts(seconds: float) -> Iterator[str]:
    """Yields a line for each part; a block takes `seconds`."""
    large, large_line = large_push(seconds)
    yield large_line
    yield from where_the_time_goes()
    small, small_line = small_push(seconds)
    yield small_line
    many, many_line = many_pushes()
    yield many_line
    yield f"costs for models                 {cost_of(large, small, many)}"


def measure_cost(seconds: float) -> PushCost:
    """Measures only the costs."""
    return cost_of(large_push(seconds)[0], small_push(seconds)[0], many_pushes()[0])


def cost_of(large_cpu_s: float, small_p50_s: float, small_cpu_s: float) -> PushCost:
    """Separates the cost per push from the cost per byte."""
    per_mb = (large_cpu_s - small_cpu_s) / (LARGE / 1e6)
    return PushCost(small_cpu_s, max(0.0, per_mb), small_p50_s)


def large_push(seconds: float) -> tuple[float, str]:
    """Compares pushes of 32 MiB with a socket; returns the learner's CPU time per push, and a line."""
    with _learner(LARGE, batch=4) as learner, _worker(learner) as push, raw_socket(LARGE) as raw:
        before_s, pushes = learner.cpu_s, 0
        ours, theirs = _alternate(push, raw, seconds)
        pushes = len(ours) + 1
        cpu_s = (learner.cpu_s - before_s) / pushes
    line = (
        f"push of 32 MiB, 512 KiB chunks   {_ms(min(ours))}   raw socket {_ms(min(theirs))}   "
        f"ratio {min(theirs) / min(ours):.2f}   learner's CPU {_ms(cpu_s)}   medians: "
        f"{_ms(statistics.median(ours))}, {_ms(statistics.median(theirs))}"
    )
    return cpu_s, line


def small_push(seconds: float) -> tuple[float, str]:
    """Compares pushes of 10 KiB with a socket and a reply of one byte; returns the median, and a line."""
    with _learner(SMALL, batch=64) as learner, _worker(learner) as push, raw_socket(SMALL) as raw:
        ours, theirs = (statistics.median(times) for times in _alternate(push, raw, seconds))
    line = (
        f"push of 10 KiB, until accepted   p50 {1e6 * ours:.0f} us   raw socket p50 {1e6 * theirs:.0f} us   "
        f"ratio {ours / theirs:.1f}"
    )
    return ours, line


def many_pushes() -> tuple[float, str]:
    """Pushes 10 KiB from several processes; returns the learner's CPU time per push, and a line."""
    total = PROCESSES * STREAMS * PUSHES
    with _learner(SMALL, batch=64, lanes=PROCESSES * STREAMS) as learner:
        before_s = learner.cpu_s
        with contextlib.closing(load(learner.address, PROCESSES, STREAMS, PUSHES)) as legs:
            wall_s = max(next(legs))
        cpu_s = (learner.cpu_s - before_s) / total
    line = (
        f"pushes of 10 KiB, {PROCESSES} x {STREAMS} streams {total / wall_s:6.0f} pushes/s   learner's CPU "
        f"{1e6 * cpu_s:.0f} us each: at most {1 / cpu_s:.0f}/s on one core"
    )
    return cpu_s, line


def load(address: str, processes: int, streams: int, pushes: int) -> Generator[list[float], None, None]:
    """Repeatedly lets several processes push at the same time; yields the seconds of each repetition."""
    command = [sys.executable, "-m", "benchmarks.bare_worker", address]
    with contextlib.ExitStack() as cleanup:
        running = [
            cleanup.enter_context(
                subprocess.Popen(
                    [*command, f"load{number}", str(streams), str(pushes)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(processes)
        ]
        for process in running:
            cleanup.callback(process.stdin.close)
            assert process.stdout.readline() == "ready\n"
        while True:
            for process in running:
                process.stdin.write("go\n")
                process.stdin.flush()
            yield [float(process.stdout.readline()) for process in running]


def where_the_time_goes() -> Iterator[str]:
    """Measures each step that Python performs on 32 MiB at both ends, without the copies made by gRPC."""
    body = bytes(LARGE)
    messages = [WorkerMessage(chunk=chunk) for chunk in codec.chunks(body, 1, CHUNK)]
    wire = [message.SerializeToString() for message in messages]
    leaf = np.zeros(LARGE // 4, np.float32)
    steps: dict[str, Callable[[], object]] = {
        "sender: cut, checksum, wrap": lambda: [
            WorkerMessage(chunk=chunk) for chunk in codec.chunks(body, 1, CHUNK)
        ],
        "  of which checksum": lambda: zlib.crc32(body),
        "sender: serialise": lambda: [message.SerializeToString() for message in messages],
        "receiver: parse": lambda: [WorkerMessage.FromString(one) for one in wire],
        "receiver: check and assemble": lambda: _assemble(messages),
        "receiver: is it finite": lambda: np.isfinite(leaf).all(),
    }
    for name, step in steps.items():
        yield f"  {name:<31}{_ms(min(_time(step) for _ in range(ROUNDS)))}"


@contextlib.contextmanager
def _learner(body_bytes: int, *, batch: int, lanes: int = 1) -> Iterator[BareLearner]:
    with (
        tempfile.TemporaryDirectory() as folder,
        bare_learner(folder, lanes=lanes, body_bytes=body_bytes, batch=batch) as learner,
    ):
        yield learner


@contextlib.contextmanager
def _worker(learner: BareLearner) -> Iterator[Callable[[], None]]:
    worker = BareWorker(learner.address, "w0")
    worker.wait_for_lane()

    def push() -> None:
        worker.push()
        worker.wait_for_acceptance()

    yield push
    worker.close()


def _alternate(
    one: Callable[[], None], other: Callable[[], None], seconds: float
) -> tuple[list[float], list[float]]:
    """Calls both in alternating blocks; returns the seconds of each call."""
    timings: tuple[list[float], list[float]] = ([], [])
    one()
    other()
    for _ in range(ROUNDS):
        for call, times in zip((one, other), timings, strict=True):
            end = time.perf_counter() + seconds / 2
            while time.perf_counter() < end:
                times.append(_time(call))
    return timings


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _assemble(messages: list[WorkerMessage]) -> memoryview:
    assembler = codec.Assembler(1, LARGE)
    for message in messages:
        assembler.add(message.chunk)
    return assembler.body()


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:5.1f} ms"
