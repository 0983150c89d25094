"""The environment variables of a run's processes, to be set before they import JAX."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from service.config.run_config import RunConfig
from service.config.toml_document import read_tables
from service.run.run_directory import find_run
from unspool.config.numerics import Numerics
from workers import bootstrap
from workers.numeric_environment import Foreign, cpu_devices_flag, foreign_variables, pin, record

_CONTROLLED: Final = {
    "PJRT_NPROC": "workers.cpu_threads",
    "JAX_PLATFORMS": "workers.platform",
    "JAX_NUM_CPU_DEVICES": "workers.devices",
}


def worker_environment(config: RunConfig) -> dict[str, str]:
    """Return the variables of a worker."""
    workers = config.workers
    on_cpu = workers.platform == "cpu"
    devices = bootstrap.Devices(
        cpu_threads=workers.cpu_threads,
        gpus=workers.num_gpus,
        cpu_devices=workers.device_count if on_cpu else 1,
    )
    # Other platforms also need the CPU, for arrays on the host.
    platforms = "cpu" if on_cpu else f"{workers.platform},cpu"
    computing = {"JAX_PLATFORMS": platforms, **record(config.numerics)}
    return device_environment(devices) | computing


def device_environment(devices: bootstrap.Devices) -> dict[str, str]:
    """Return the variables of a worker that is started without its run's configuration."""
    return bootstrap.environment(devices, _cache())


def learner_environment(config: RunConfig) -> dict[str, str]:
    """Return the variables of the learner, which updates theta on the CPU."""
    return device_environment(bootstrap.Devices(cpu_threads=config.workers.cpu_threads))


def ignored_variables(config: RunConfig, environ: Mapping[str, str] = os.environ) -> list[Foreign]:
    """Return the variables of `environ` that do not reach the processes of a run."""
    wanted = worker_environment(config)
    overruled = [
        Foreign(name, environ[name], key, wanted[name])
        for name, key in _CONTROLLED.items()
        if environ.get(name, wanted[name]) != wanted[name]
    ]
    flag = cpu_devices_flag(environ)
    if flag:
        overruled.append(Foreign("XLA_FLAGS", flag, "workers.devices", wanted["JAX_NUM_CPU_DEVICES"]))
    return foreign_variables(config.numerics, environ) + overruled


def pin_learner(config: RunConfig) -> list[Foreign]:
    """Make this process compute as the learner of a run does; JAX must not have been imported yet."""
    os.environ.update(learner_environment(config))
    return pin(config.numerics)


def pin_to(run_or_file: str) -> list[Foreign]:
    """Make this process compute as the given run does; JAX must not have been imported yet.

    An exported file contains its own numerics, which are applied when it is read.
    """
    if Path(run_or_file).is_file():
        return pin(Numerics())
    return pin(RunConfig.from_tables(read_tables(find_run(run_or_file).config_path)).numerics)


def use_compilation_cache() -> None:
    """Let this process use the run's compilation cache; JAX must not have been imported yet."""
    for name, value in bootstrap.environment(bootstrap.Devices(), _cache()).items():
        if "CACHE" in name:
            os.environ.setdefault(name, value)


def _cache() -> Path | None:
    """Return the folder of the compilation cache, or None if it cannot be created: it only saves time."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        return Path(chosen)
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return bootstrap.private_directory(root / "unspool" / "jax")
    except (OSError, RuntimeError):
        return None
