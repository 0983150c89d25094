"""Checks that this process reproduces the run's results bit for bit; otherwise it must not take part."""

from collections.abc import Mapping, Sequence
from typing import Any

from protos.exit_codes import RefusedError
from unspool.config.numerics import Numerics
from workers.numeric_environment import foreign_to_libraries


def compute_as(numerics: Numerics, environ: Mapping[str, str]) -> None:
    """Set JAX's options from the run's, and check the variables that XLA read when this process started.

    Raises:
        RefusedError: a variable differs from the run's; the message names it and the remedy.
    """
    for foreign in foreign_to_libraries(numerics, environ):
        raise RefusedError(
            f"this worker has {foreign.variable}={foreign.value or 'unset'} but the run's {foreign.key} is "
            f"{foreign.wanted or 'unset'}: {foreign.remedy}"
        )
    numerics.apply()


def check_devices(wanted: Mapping[str, Any], environ: Mapping[str, str], own: Sequence[Any]) -> None:
    """Reject devices that differ from the run's: in `sync`, theta must not depend on the worker.

    Args:
        wanted: the table `workers` of the run's configuration.
        environ: of this process.
        own: the JAX devices of this process.

    Raises:
        RefusedError: a device setting differs; the message names it and the remedy.
    """
    _check_platform(wanted.get("platform", own[0].platform), own[0].platform)
    if wanted.get("platform") == "cpu":
        _check_cpus(wanted, environ.get("PJRT_NPROC", ""), len(own))


def _check_platform(platform: str, own: str) -> None:
    if {"cuda": "gpu", "rocm": "gpu"}.get(platform, platform) != own:
        remedy = "JAX_PLATFORMS=cpu" if platform == "cpu" else "--gpus, on a machine with GPUs"
        raise RefusedError(
            f"this worker computes on {own} but the run's workers.platform is {platform}: start it with "
            f"{remedy}"
        )


def _check_cpus(wanted: Mapping[str, Any], own_threads: str, own_devices: int) -> None:
    threads, devices = str(wanted.get("cpu_threads", own_threads)), int(wanted.get("devices", 1))
    if own_threads != threads:
        raise RefusedError(
            f"this worker's XLA has PJRT_NPROC={own_threads or 'unset'} but the run's workers.cpu_threads is "
            f"{threads}: start it with --cpu-threads {threads}"
        )
    # XLA partitions the work of one CPU device differently when there are other devices, used or not.
    if own_devices > devices:
        raise RefusedError(
            f"this worker's CPUs are {own_devices} devices but the run's workers.devices is {devices}: start "
            f"it with --cpu-devices {devices}, and without JAX_NUM_CPU_DEVICES"
        )
