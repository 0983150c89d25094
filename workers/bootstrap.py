"""The environment variables that a worker process needs before it imports JAX, and the cache directory.

This module and the pools do not import JAX: a supervisor that did would hold devices that its workers need.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_GPU_MEMORY_SHARE = 0.9  # the fraction is of a GPU's total memory, of which the CUDA contexts need some
_CACHE_BYTES = 2 * 2**30
_CACHE_MIN_COMPILE_S = 0.5


@dataclass(frozen=True)
class Devices:
    """The devices of one worker.

    Attributes:
        cpu_threads: the number of CPUs that XLA assumes. XLA's results depend on it, so it must be the same
            for every worker of a reproducible run; 0 leaves it to the machine.
        gpus: GPUs per worker, a fraction if workers share one; 0: the worker computes on CPUs.
        cpu_devices: number of JAX CPU devices, for a worker that divides its tasks among several.
    """

    cpu_threads: int = 0
    gpus: float = 0.0
    cpu_devices: int = 1

    def __post_init__(self) -> None:
        """Reject values out of range."""
        for name in ("cpu_threads", "gpus"):
            if getattr(self, name) < 0:
                raise ValueError(f"Devices({name}={getattr(self, name)!r}): must not be negative")
        if self.cpu_devices < 1:
            raise ValueError(f"Devices(cpu_devices={self.cpu_devices!r}): must be at least 1")


def environment(devices: Devices, cache_dir: Path | None = None) -> dict[str, str]:
    """Return the variables to set before a worker imports JAX or gRPC.

    Args:
        devices: of the worker.
        cache_dir: JAX's compilation cache, one for the workers of a machine; None: no cache. Create it with
            `private_directory`.
    """
    # XLA's results on CPUs depend on the number of CPU devices, used or not.
    variables = {"GRPC_VERBOSITY": "ERROR", "JAX_NUM_CPU_DEVICES": str(devices.cpu_devices)}
    if devices.gpus == 0:
        # Ray shows every GPU to an actor that requested none, so select the CPU explicitly.
        variables["JAX_PLATFORMS"] = "cpu"
    elif devices.gpus < 1:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{_GPU_MEMORY_SHARE * devices.gpus:.3f}"
    if devices.cpu_threads:
        variables["PJRT_NPROC"] = str(devices.cpu_threads)
    if cache_dir is not None:
        variables |= {
            "JAX_COMPILATION_CACHE_DIR": str(cache_dir),
            # Without a limit JAX does not lock the cache, and a reader may see a half-written file.
            "JAX_COMPILATION_CACHE_MAX_SIZE": str(_CACHE_BYTES),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": str(_CACHE_MIN_COMPILE_S),
        }
    return variables


def private_directory(path: Path) -> Path:
    """Create `path` as a directory that only this user can write to: compiled programs in it are executed.

    Raises:
        PermissionError: it exists and belongs to another user.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(
            f"{path}: belongs to another user, who could run code here; name another directory"
        )
    path.chmod(0o700)
    return path
