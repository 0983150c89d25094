"""Prepares a run directory from a configuration file, after all checks."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from protos.exit_codes import ExitCode, FailedError, UnspoolError, UsageError, error_for
from protos.rpc.connection import advertised_host
from protos.rpc.roles import Role
from protos.rpc.tls import TlsError, check_client, check_server
from service.config.run_config import RunConfig
from service.config.toml_document import Tables, changed_keys, read_tables, with_overrides, write_tables
from service.run.run_directory import RUNS, RunDirectory, claim_free_directory, known_runs, run_called
from service.run.supervision import check_unsupervised
from service.supervise.learner_process import running_learner
from service.supervise.learner_restarts import cause_of
from unspool.config.config_error import ConfigError, Problem, did_you_mean
from unspool.config.toml_values import as_toml
from workers.pools.local_process import PROGRAM

_LOG_LINES: Final = 5
_CHECK_S: Final = 900.0  # data may have to be read from a slow disk


def prepare(
    config_path: Path,
    overrides: Sequence[str],
    run_dir: Path | None,
    accept_config_change: bool,
    takeover: bool = False,
) -> RunDirectory:
    """Return the directory of a new run, or of one to resume, containing a valid configuration.

    Args:
        config_path: a configuration, or the directory or the name of a run.
        overrides: `key=value` each.
        run_dir: of the run; by default a new one below `runs`, named after the configuration.
        accept_config_change: resume even if that changes what is trained.
        takeover: allow a run that is in use.

    Raises:
        ConfigError: the configuration cannot be used.
        UsageError: the directory cannot be used, or contains a run of another configuration.
        RunInUseError: the run is in use.
    """
    resumed = run_called(config_path)
    if resumed is not None:
        run_dir, config_path = resumed.path, resumed.config_path
    elif not config_path.exists():
        raise _nothing_called(config_path)
    tables = with_overrides(read_tables(config_path), overrides)
    check_in_child(tables)
    config = RunConfig.from_tables(tables)
    check_tls_files(config)
    run = claim_free_directory(config_path.stem) if run_dir is None else RunDirectory(run_dir)
    if run.exists:
        if not takeover:
            check_unsupervised(run)
            running_learner(run)  # raises if the learner cannot be adopted
        check_resumable(run, config, accept_config_change)
    elif run.path.exists() and (not run.path.is_dir() or (run_dir and any(run.path.iterdir()))):
        raise UsageError(f"--run-dir {run.path}: exists and is not a run; name a new or an empty directory")
    run.create(write_tables(config.to_tables()))
    return run


def _nothing_called(path: Path) -> ConfigError:
    names = [run.name for run in known_runs()]
    remedy = did_you_mean(path.name, names) if names else f"there is no run in {RUNS.absolute()}"
    rule = f"cannot be read: No such file, and {RUNS} has no run of that name"
    return ConfigError(Problem(str(path), None, rule, remedy))


def check_tls_files(config: RunConfig) -> None:
    """Reject certificates that would be rejected later. Folders of clients on other machines may be missing.

    Raises:
        ConfigError: a file is invalid; the message names it and the problem.
    """
    server = config.tls.server
    if server is None:
        return
    clients = [client for client in map(config.tls.of, Role) if client is not None]
    try:
        check_server(server, advertised_host(config.learner.host, config.learner.advertise).strip("[]"))
        for client in clients:
            if client.directory.exists():
                check_client(client)
    except TlsError as error:
        remedy = "renew it, or create a new one with `unspool certs init`"
        directory = as_toml(config.tls.directory)
        raise ConfigError(Problem("tls.directory", directory, str(error), remedy)) from error


def check_in_child(tables: Tables) -> None:
    """Validate a configuration, including components and data, in a child process.

    This process supervises for hours. It must not hold JAX or the data in memory, and it starts processes,
    which is unsafe with JAX's threads.

    Raises:
        ConfigError: with every problem.
    """
    try:
        finished = subprocess.run(
            [*PROGRAM, "check", "-", "--json"],
            input=write_tables(tables).encode(),
            capture_output=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONUTF8": "1"},
            check=False,
            timeout=_CHECK_S,
        )
    except subprocess.TimeoutExpired:
        raise FailedError(
            f"the configuration could not be checked within {_CHECK_S:.0f} s; `unspool check` shows what "
            "takes so long: a constructor of the experiment, or its data"
        ) from None
    if finished.returncode != ExitCode.OK:
        raise _failed_check(finished.returncode, finished.stdout, finished.stderr)
    sys.stderr.write(finished.stderr.decode(errors="replace"))


def _failed_check(exit_code: int, answer: bytes, log: bytes) -> UnspoolError | ConfigError:
    """Return the error that the check reported, or one about how its process ended."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        report = json.loads(answer)
        if report["problems"]:
            return ConfigError(*(Problem(**problem) for problem in report["problems"]))
        return error_for(exit_code, f"the configuration could not be checked: {report['error']}")
    lines = log.decode(errors="replace").strip().splitlines() or ["it printed nothing"]
    how = cause_of(exit_code)
    if exit_code == -signal.SIGKILL:
        how += ", as the system does when memory runs out: free memory, or make the experiment smaller"
    last_lines = "\n  ".join(lines[-_LOG_LINES:])
    return FailedError(f"the configuration could not be checked: the check {how}:\n  {last_lines}")


def check_resumable(run: RunDirectory, config: RunConfig, accept_config_change: bool) -> None:
    """Reject a configuration that would train something else than the run did.

    Raises:
        UsageError: keys differ, or the run already has more outer steps than wanted.
    """
    done, wanted = run.checkpointed_step, config.experiment.get("outer_steps", 0)
    if wanted < done:
        raise UsageError(
            f"outer_steps = {wanted}: {run.path} has already done {done} outer steps; "
            f"set outer_steps to {done} or more, or launch in another --run-dir"
        )
    before = RunConfig.from_tables(read_tables(run.config_path))
    changed = changed_keys(before.lasting_tables(), config.lasting_tables())
    if changed and accept_config_change:
        run.accept_checkpoints_of(before.training_sha256())
    elif changed:
        raise UsageError(
            f"{run.path} is a run of another configuration: {', '.join(changed)} changed; launch it in "
            "another --run-dir, or continue from its theta with --accept-config-change"
        )
