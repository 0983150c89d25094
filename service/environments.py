"""What the environment of a run's processes must say before JAX is imported in them."""

import os
from pathlib import Path

from service.config import RunConfig
from workers import bootstrap


def worker_environment(config: RunConfig) -> dict[str, str]:
    """Return the variables of a worker."""
    workers = config.workers
    on_cpu = workers.platform == "cpu"
    devices = bootstrap.Devices(
        cpu_threads=workers.cpu_threads,
        gpus=workers.num_gpus,
        cpu_devices=workers.device_count if on_cpu else 1,
    )
    # Other platforms need the CPU beside them, for what lives on the host.
    platforms = "cpu" if on_cpu else f"{workers.platform},cpu"
    return device_environment(devices) | {"JAX_PLATFORMS": platforms}


def device_environment(devices: bootstrap.Devices) -> dict[str, str]:
    """Return the variables of a worker that is started without its run's configuration."""
    return bootstrap.environment(devices, _cache())


def learner_environment(config: RunConfig) -> dict[str, str]:
    """Return the variables of the learner, which updates theta on the CPU."""
    return device_environment(bootstrap.Devices(cpu_threads=config.workers.cpu_threads))


def use_compilation_cache() -> None:
    """Let this process reuse what the run's processes have compiled; JAX must not have been imported yet."""
    for name, value in bootstrap.environment(bootstrap.Devices(), _cache()).items():
        if "CACHE" in name:
            os.environ.setdefault(name, value)


def _cache() -> Path | None:
    """The folder of compiled programs, or None where there can be none: it only saves time."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        return Path(chosen)
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return bootstrap.private_directory(root / "unspool" / "jax")
    except (OSError, RuntimeError):
        return None
