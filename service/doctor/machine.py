"""Checks whether this machine can run a learner and its workers: versions, memory, disk, ports."""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.version import Version

from service.display.tables import Finding
from service.doctor.capacity import KIB, MIB

GIB: Final = 2**30
_JUDGED: Final = ("jax", "ray", "grpcio", "protobuf", "numpy", "optax")
_PYTHONS: Final = ((3, 11), (3, 13))
_WORKER_BYTES: Final = 450 * MIB
_SLOW_FSYNC_S: Final = 0.2
_FSYNC_BYTES: Final = MIB
_SPARE_DISK_BYTES: Final = GIB


def versions() -> Iterator[Finding]:
    """Check Python and the packages whose versions must match."""
    python = platform.python_version()
    if _PYTHONS[0] <= tuple(map(int, platform.python_version_tuple()[:2])) <= _PYTHONS[1]:
        yield Finding("python", "ok", f"{python}; every machine of a cluster needs the same minor version")
    else:
        yield Finding("python", "problem", f"{python}", "use Python 3.11 to 3.13")
    for requirement in _requirements():
        yield _package(requirement)
    jax, jaxlib = _version("jax"), _version("jaxlib")
    if _minor(jax) == _minor(jaxlib):
        yield Finding("jaxlib", "ok", jaxlib)
    else:
        yield Finding("jaxlib", "problem", f"{jaxlib}, but jax is {jax}", f"pip install jaxlib=={jax}")


def memory(learner_bytes: int, workers: int) -> Finding:
    """Check whether a learner and `workers` workers fit into this machine's memory."""
    available, needed = _memory_bytes(), learner_bytes + workers * _WORKER_BYTES
    text = f"about {size(needed)} for the learner ({size(learner_bytes)}) and {workers} workers"
    if available is None:
        return Finding("memory", "ok", f"{text}; the available memory is unknown")
    if needed <= available:
        return Finding("memory", "ok", f"{text}; {size(available)} are available")
    if learner_bytes <= available:
        remedy = "lower workers.count, or use workers on other machines (--address)"
        return Finding("memory", "warning", f"{text}; only {size(available)} are available here", remedy)
    remedy = "lower checkpoint.every, aggregation.batch or lanes, or use a machine with more memory"
    return Finding("memory", "problem", f"{text}; only {size(available)} are available", remedy)


def cores(workers: int, threads: int) -> Finding:
    """Check whether there is a core for each of the workers' threads."""
    available, wanted = _cores(), workers * threads
    text = f"{available} for {workers} x {threads} threads of workers"
    if wanted <= available:
        return Finding("cores", "ok", text)
    remedy = f"more than {max(1, available // threads)} workers only help on other machines (--address)"
    return Finding("cores", "warning", f"{text}: not enough if they run here", remedy)


def disk(folder: Path, needed_bytes: int) -> Iterator[Finding]:
    """Check the free space at `folder`, and how fast written data becomes durable."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free, needed = shutil.disk_usage(there).free, needed_bytes + _SPARE_DISK_BYTES
    text = f"{size(free)} free at {there}; checkpoints take about {size(needed_bytes)}"
    if free >= needed:
        yield Finding("disk", "ok", text)
    else:
        yield Finding("disk", "problem", text, "make room, lower checkpoint.keep, or use another --run-dir")
    try:
        took_s = _fsync_s(there)
    except OSError as error:
        remedy = "let this user write there, or use another --run-dir"
        yield Finding("disk speed", "problem", f"{there} cannot be written to ({error.strerror})", remedy)
        return
    text = f"1 MiB is durable after {1e3 * took_s:.0f} ms"
    if took_s <= _SLOW_FSYNC_S:
        yield Finding("disk speed", "ok", text)
    else:
        yield Finding("disk speed", "warning", text, "checkpoints lag behind: use a local disk for --run-dir")


def port(name: str, host: str, number: int) -> Finding:
    """Check whether a server can listen on a port of the configuration; 0 stands for any free one."""
    about, where = f"learner.{name}", f"{host}:{number}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
    except OSError as error:
        remedy = f"set learner.host to an address of this machine, or {about} to a free port, or 0 for any"
        return Finding(about, "problem", f"{where} cannot be listened on: {error.strerror}", remedy)
    return Finding(about, "ok", f"{where} is free" if number else f"any free one of {host}")


def _requirements() -> Iterator[Requirement]:
    """Yield the requirements of this package whose versions can break a run."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a checkout, not installed
        for requirement in map(Requirement, importlib.metadata.requires("unspool") or ()):
            if requirement.name.lower() in _JUDGED:
                yield requirement


def _package(requirement: Requirement) -> Finding:
    name, version = requirement.name, _version(requirement.name)
    if version and requirement.specifier.contains(version, prereleases=True):
        same = "; every node of a cluster needs the same" if name == "ray" else ""
        return Finding(name, "ok", f"{version}{same}")
    remedy = f"pip install '{name}{requirement.specifier}'"
    return Finding(name, "problem", version or "is not installed", remedy)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _minor(version: str) -> tuple[int, ...]:
    return Version(version).release[:2] if version else ()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int | None:
    """Return the available memory of this machine, or of this container if less; None if unknown."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        found.append(limit - int((group / "memory.current").read_text()))
    return min(found, default=None)


def _fsync_s(folder: Path) -> float:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as file:
        began_s = time.perf_counter()
        file.write(bytes(_FSYNC_BYTES))
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - began_s


def size(count: int) -> str:
    """Return a number of bytes with its unit."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
