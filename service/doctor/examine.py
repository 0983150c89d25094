"""Checks this machine and a run's configuration before launching."""

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from protos.exit_codes import LearnerUnreachableError
from protos.rpc.connection import advertised_host
from protos.rpc.roles import Role
from protos.rpc.tls import TlsError, check_client, check_server
from service.config.check import checked_config
from service.config.run_config import RunConfig
from service.display.tables import Finding
from service.doctor import capacity, machine
from service.doctor.timeouts import Timeouts, inconsistencies
from service.run.environments import ignored_variables
from service.run.run_directory import RUNS, RunDirectory, run_called
from service.supervise.ray_cluster import temporary_folder
from unspool.config.numerics import Numerics
from workers.numeric_environment import Foreign, foreign_variables

_DAY_S: Final = 86_400.0
_SOON_DAYS: Final = 7.0
_TYPICAL_GRADIENT_S: Final = 1.0
_LONG_GRADIENT_S: Final = 5.0  # truncations commonly take 0.2 to 5 s


def examine(path: Path | None, overrides: Sequence[str]) -> list[Finding]:
    """Return the findings.

    Args:
        path: a configuration, or a run directory; None checks only this machine.
        overrides: of the configuration's keys.

    Raises:
        ConfigError: with every problem of the configuration itself.
    """
    found = dict(os.environ)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # this process must not take a device from a run
    if path is None:
        variables = foreign_variables(Numerics(), found)
        return [*machine.versions(), *environment(variables), temporary_folder(), *machine.disk(RUNS, 0)]
    run = run_called(path)
    config = checked_config(path if run is None else run.config_path, overrides)
    variables = ignored_variables(config, found)
    of_the_run = _of_the_run(config, RUNS if run is None else run.path)
    return [*machine.versions(), *environment(variables), *of_the_run]


def environment(ignored: Sequence[Foreign]) -> Iterator[Finding]:
    """Yield the variables that would affect JAX's results if the configuration did not overrule them."""
    for foreign in ignored:
        yield Finding("environment", "warning", *foreign.consequence)
    if not ignored:
        yield Finding("environment", "ok", "no variable that theta could depend on")


def _of_the_run(config: RunConfig, folder: Path) -> Iterator[Finding]:
    theta_bytes = _theta_bytes(config)
    needs = _learner_memory(config, theta_bytes)
    yield temporary_folder()
    yield from _ports(config, RunDirectory(folder))
    yield from certificates(config)
    yield from timeouts(config)
    yield from machine.disk(folder, (config.checkpoint.keep + 1) * (needs.ring + needs.optimizer))
    yield machine.memory(needs.total, config.workers.count)
    yield machine.cores(config.workers.count, config.workers.cpu_threads)
    size = machine.size
    text = f"{size(needs.ring)} for published thetas, {size(needs.buffer)} for buffered gradients"
    text += f", {size(needs.optimizer)} for the outer optimizer"
    yield Finding("learner's memory", "ok", f"at most {text}")
    yield from learner_load(config, theta_bytes)


def _ports(config: RunConfig, run: RunDirectory) -> Iterator[Finding]:
    learner = config.learner
    ports = {"port": learner.port, "admin_port": learner.admin_port, "http_port": learner.http_port}
    own = ""
    with contextlib.suppress(LearnerUnreachableError):
        endpoints = run.endpoints()
        own = f"{endpoints.learner} {endpoints.admin} {endpoints.http} "
    for name, number in ports.items():
        finding = machine.port(name, learner.host, number)
        if finding.state != "ok" and f":{number} " in own:
            finding = Finding(finding.about, "ok", f"{number}: where this run's learner is, or was last")
        yield finding


def certificates(config: RunConfig) -> Iterator[Finding]:
    """Check the TLS files as the other end of a connection would, and their expiry."""
    server = config.tls.server
    if server is None:
        return
    host = advertised_host(config.learner.host, config.learner.advertise)
    judged: dict[str, Callable[[], float]] = {"server": functools.partial(check_server, server, host)}
    for role in (Role.WORKER, Role.ADMIN):
        identity = config.tls.of(role)
        if identity is not None:
            judged[role.value] = functools.partial(check_client, identity)
    for name, check in judged.items():
        about = f"certificate of {name}"
        try:
            days = (check() - time.time()) / _DAY_S
        except TlsError as error:
            yield Finding(
                about, "problem", str(error), "renew it; `unspool certs init DIR` makes some for trials"
            )
        else:
            yield _age(about, days)


def _age(about: str, days: float) -> Finding:
    if math.isinf(days):
        return Finding(about, "ok", "none, and none is required")
    text = f"expires in {days:.0f} days"
    if days > _SOON_DAYS:
        return Finding(about, "ok", text)
    return Finding(about, "warning", text, "replace the files; a learner takes new ones while it runs")


def timeouts(config: RunConfig) -> Iterator[Finding]:
    """Check the hierarchy of timeouts."""
    derived = Timeouts.of(config.liveness)
    problems = inconsistencies(derived)
    if not problems:
        yield Finding("timeouts", "ok", str(derived))
    for text, remedy in problems:
        yield Finding("timeouts", "problem", text, remedy)


def learner_load(config: RunConfig, theta_bytes: int) -> Iterator[Finding]:
    """Report how many workers one learner supports, and check the configured number."""
    rate, size = capacity.gradients_per_s(theta_bytes), machine.size(theta_bytes)
    carried = capacity.workers_carried(theta_bytes, _TYPICAL_GRADIENT_S)
    workers, lanes = config.workers.count, config.aggregation.lanes
    yield Finding(
        "capacity",
        "ok",
        f"theta has {size}: with half a core one learner takes about {rate:,.0f} gradients/s, "
        f"so {carried} workers that take {_TYPICAL_GRADIENT_S:g} s for one (measured on 2 contended cores)",
    )
    if workers > lanes:
        text = (
            f"workers.count = {workers}, aggregation.lanes = {lanes}: {workers - lanes} workers have no lane"
        )
        yield Finding("workers", "warning", text, "workers beyond the lanes only wait: lower workers.count")
    shortest_s = min(workers, lanes) / rate
    if (
        capacity.wants_relay(theta_bytes, workers)
        or shortest_s > _LONG_GRADIENT_S
        or workers > capacity.STREAMS
    ):
        text = (
            f"{workers} workers with gradients of {size} keep one learner busy, unless each "
            f"takes {shortest_s:.2g} s for one"
        )
        yield Finding(
            "relays", "warning", text, "`unspool relay` on each node: its workers share one connection"
        )


def _theta_bytes(config: RunConfig) -> int:
    import jax

    from unspool.experiment import Experiment

    leaves: list[Any] = jax.tree_util.tree_leaves(
        Experiment.from_tables(config.training_tables()).theta_shape()
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _learner_memory(config: RunConfig, theta_bytes: int) -> capacity.LearnerMemory:
    from learner.settings import BUFFERED_BATCHES

    return capacity.learner_memory(
        theta_bytes,
        BUFFERED_BATCHES * config.aggregation.batch_size,
        config.checkpoint.every,
        is_exact=config.aggregation.mode == "sync",
    )
