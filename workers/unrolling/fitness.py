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
    _check_platform(wanted, own[0].platform)
    _check_cpu_threads(wanted, environ.get("PJRT_NPROC", ""))
    _check_cpu_devices(wanted, len(own))


def _check_cpu_threads(wanted: Mapping[str, Any], own: str) -> None:
    threads = str(wanted.get("cpu_threads", own))
    if wanted.get("platform") == "cpu" and own != threads:
        raise RefusedError(
            f"this worker's XLA has PJRT_NPROC={own or 'unset'} but the run's workers.cpu_threads is "
            f"{threads}: start it with --cpu-threads {threads}"
        )


def _check_platform(wanted: Mapping[str, Any], own: str) -> None:
    platform = wanted.get("platform", own)
    if {"cuda": "gpu", "rocm": "gpu"}.get(platform, platform) != own:
        remedy = (
            "start it with JAX_PLATFORMS=cpu"
            if platform == "cpu"
            else "start it with --gpus, where there are some"
        )
        raise RefusedError(
            f"this worker computes on {own} but the run's workers.platform is {platform}: {remedy}"
        )


def _check_cpu_devices(wanted: Mapping[str, Any], own: int) -> None:
    # XLA partitions the work of one CPU device differently when there are other devices, used or not.
    devices = int(wanted.get("devices", 1))
    if wanted.get("platform") == "cpu" and own > devices:
        raise RefusedError(
            f"this worker's CPUs are {own} devices but the run's workers.devices is {devices}: start it with "
            f"--cpu-devices {devices}, and without JAX_NUM_CPU_DEVICES"
        )
