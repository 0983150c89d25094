"""What the environment of a run's processes must say before JAX is imported in them."""

import os
from pathlib import Path

from service.config import RunConfig
from workers import bootstrap


def worker_environment(config: RunConfig) -> dict[str, str]:
    """Return the variables of a worker."""
    devices = bootstrap.Devices(cpu_threads=config.workers.cpu_threads, gpus=config.workers.num_gpus)
    cache = bootstrap.private_directory(_cache_directory())
    # Other platforms need the CPU beside them, for what lives on the host.
    platforms = "cpu" if config.workers.platform == "cpu" else f"{config.workers.platform},cpu"
    return bootstrap.environment(devices, cache) | {"JAX_PLATFORMS": platforms}


def learner_environment(config: RunConfig) -> dict[str, str]:
    """Return the variables of the learner, which updates theta on the CPU."""
    return worker_environment(config) | {"JAX_PLATFORMS": "cpu"}


def _cache_directory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or Path(root) / "unspool" / "jax")
