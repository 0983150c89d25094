"""The environment that a worker process needs before JAX is imported in it, and what has to exist for it.

This module and the pools do not import JAX: a supervisor that did would hold devices that its workers need.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_GPU_MEMORY_SHARE = 0.9  # JAX counts from a GPU's total memory; the CUDA contexts need some of it as well
_CACHE_BYTES = 2 * 2**30
_CACHE_MIN_COMPILE_S = 0.5


@dataclass(frozen=True)
class Devices:
    """What one worker computes on.

    Attributes:
        cpu_threads: what XLA takes for the number of CPUs. Its results depend on it, so it is part of a run's
            reproducibility and the same for every worker; 0 leaves it to the machine.
        gpus: GPUs per worker, a fraction if workers share one; 0: the worker computes on CPUs.
        cpu_devices: devices that JAX makes of the CPUs, for a worker that divides its tasks among several.
    """

    cpu_threads: int = 0
    gpus: float = 0.0
    cpu_devices: int = 1

    def __post_init__(self) -> None:
        """Refuse impossible figures."""
        for name in ("cpu_threads", "gpus"):
            if getattr(self, name) < 0:
                raise ValueError(f"Devices({name}={getattr(self, name)!r}): must not be negative")
        if self.cpu_devices < 1:
            raise ValueError(f"Devices(cpu_devices={self.cpu_devices!r}): must be at least 1")


def environment(devices: Devices, cache_dir: Path | None = None) -> dict[str, str]:
    """Return the variables to set before a worker imports JAX or gRPC.

    Args:
        devices: what the worker computes on.
        cache_dir: JAX's compilation cache, one for the workers of a machine; None: no cache. Make it with
            `private_directory`.
    """
    # XLA's results on CPUs depend on how many devices it makes of them, used or not.
    variables = {"GRPC_VERBOSITY": "ERROR", "JAX_NUM_CPU_DEVICES": str(devices.cpu_devices)}
    if devices.gpus == 0:
        # Ray shows every GPU to an actor that asked for none, so not seeing one must be said.
        variables["JAX_PLATFORMS"] = "cpu"
    elif devices.gpus < 1:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_GPU_MEMORY_SHARE * devices.gpus:.3f}"
    if devices.cpu_threads:
        variables["PJRT_NPROC"] = str(devices.cpu_threads)
    if cache_dir is not None:
        variables |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache_dir),
            # Without a limit JAX takes no lock on the cache, and a reader may see half a file.
            "JAX_COMPILATION_CACHE_MAX_SIZE": str(_CACHE_BYTES),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(_CACHE_MIN_COMPILE_S),
        }
    return variables


def private_directory(path: Path) -> Path:
    """Make sure that `path` is a directory which nobody else can write to: compiled programs in it are run.

    Raises:
        PermissionError: it exists and belongs to someone else.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{path}: belongs to another user, who could run code here; name another directory"
        )
    path.chmod(0o700)
    return path
