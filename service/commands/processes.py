"""The commands `learner`, `worker` and `relay`: the processes of a run, from arguments to exit code.

They import JAX and the code that needs it only when they run, after setting its environment.
"""

import socket
from pathlib import Path
from typing import Annotated

from tyro import conf

from protos.exit_codes import ExitCode, UsageError, error_for
from protos.rpc.roles import Role
from protos.rpc.tls import Identity, TlsError, check_client
from service.commands.arguments import Json, Learner, Run, Takeover, TokenFile
from service.config.run_config import RunConfig
from service.config.toml_document import read_tables
from service.display.output import answer, report_notes
from service.run.client import TLS_DIRECTORY, TOKEN_FILE, path_from
from service.run.environments import device_environment, pin_learner
from service.run.last_status import stored_status
from service.run.run_directory import RunDirectory, find_run, read_token
from workers.bootstrap import Devices
from workers.settings import WorkerSettings


def learner(run: Run, *, takeover: Takeover = False) -> int:
    """Run the learner of a run whose directory `launch` has made. Start workers separately."""
    return run_learner(find_run(run), takeover=takeover)


def run_learner(run: RunDirectory, *, takeover: bool = False) -> int:
    """Train `run` from its newest checkpoint; return the exit code.

    Raises:
        UnspoolError: the learner cannot start, or the run has failed.
    """
    config = RunConfig.from_tables(read_tables(run.config_path))
    report_notes(pin_learner(config))
    from learner.main import serve
    from learner.settings import LearnerSettings
    from protos.rpc.access import Tokens
    from unspool.experiment import Experiment

    experiment = Experiment.from_tables(config.training_tables())
    config.numerics.check_applied()
    settings = LearnerSettings(
        run_dir=run.path.resolve(),
        run_id=run.name,
        experiment=experiment,
        experiment_toml=config.training_toml(),
        config_sha256=run.accepted_sha256() or config.training_sha256(),
        tokens=Tokens(**{role.value: run.token(role) for role in Role}),
        aggregation=config.aggregation,
        workers=config.workers,
        listen=config.learner,
        tls=config.tls,
        checkpoint=config.checkpoint,
        liveness=config.liveness,
    )
    exit_code: int = serve(settings, takeover=takeover)
    if exit_code != ExitCode.OK:
        raise error_for(exit_code, _how_it_ended(run))
    return exit_code


def _how_it_ended(run: RunDirectory) -> str:
    """Return the outcome that the learner has stored, in one line."""
    status = stored_status(run)
    if status is None:
        return "the run failed, and its last status could not be written"
    outcome = f"{status.state.lower()} at step {status.outer_step}/{status.outer_steps}"
    return f"{outcome}: {'; '.join(status.problems)}" if status.problems else outcome


def worker(
    *,
    learner: Learner,
    token_file: TokenFile = None,
    tls: Annotated[
        Path | None,
        conf.arg(metavar="DIR", help="the worker's ca.crt, tls.crt, tls.key; by default $UNSPOOL_TLS"),
    ] = None,
    name: Annotated[str | None, conf.arg(help="stable over restarts; by default this host's name")] = None,
    cpu_threads: Annotated[
        int, conf.arg(metavar="N", help="as the run's workers.cpu_threads: the bits of theta depend on it")
    ] = 1,
    gpus: Annotated[float, conf.arg(metavar="N", help="a fraction if workers share one")] = 0.0,
    cpu_devices: Annotated[
        int, conf.arg(metavar="N", help="as the run's workers.devices, where those are CPUs")
    ] = 1,
) -> int:
    """Run a worker: for Slurm, bare metal, and debugging."""
    devices = Devices(cpu_threads, gpus, cpu_devices)
    return run_worker(learner, _chosen(token_file), name, devices, tls or path_from(TLS_DIRECTORY))


def run_worker(
    learner: str, token_path: Path, name: str | None, devices: Devices, tls: Path | None = None
) -> int:
    """Compute for the learner at `learner` on `devices`; return the exit code.

    Raises:
        RunNotFoundError: there is no token at `token_path`.
        UsageError: the files in the folder `tls` cannot be used.
    """
    from workers.main import run

    settings = _worker_settings(learner, token_path, name or socket.gethostname(), tls)
    return run(settings, device_environment(devices))


def relay(  # noqa: PLR0913 (a command's options)
    *,
    learner: Learner,
    token_file: TokenFile = None,
    tls: Annotated[
        Path | None,
        conf.arg(
            metavar="DIR",
            help="ca.crt, tls.crt, tls.key: shown to the learner and, beyond loopback, to workers; by "
            "default $UNSPOOL_TLS",
        ),
    ] = None,
    name: Annotated[str | None, conf.arg(help="stable over restarts; by default after this host")] = None,
    host: Annotated[str, conf.arg(help="address to listen on; beyond loopback it needs --tls")] = "127.0.0.1",
    port: Annotated[int, conf.arg(help="to listen on; 0 takes any that is free")] = 0,
    max_workers: Annotated[int, conf.arg(metavar="N", help="workers behind it at once")] = 64,
    mutual_tls: Annotated[
        bool, conf.arg(help="beyond loopback, workers must show a client certificate of the run as well")
    ] = False,
    json: Json = False,
) -> int:
    """Connect the workers of a node to the learner through one connection.

    Prints where it listens; `unspool worker --learner` takes that.
    """
    from workers.relay.relay import RelaySettings, run

    name = name or f"relay-{socket.gethostname()}"
    upstream = _worker_settings(learner, _chosen(token_file), name, tls or path_from(TLS_DIRECTORY))
    try:
        settings = RelaySettings(upstream, host, port, max_workers, mutual_tls)
        return run(settings, lambda address: answer({"address": address}, json, address))
    except (OSError, TlsError, ValueError) as error:
        raise UsageError(str(error)) from error


def _chosen(path: Path | None) -> Path:
    found = path or path_from(TOKEN_FILE)
    if found is None:
        raise UsageError(f"--token-file: missing; name the run's token-worker here or in ${TOKEN_FILE}")
    return found


def _worker_settings(learner: str, token_path: Path, name: str, tls: Path | None) -> WorkerSettings:
    identity = None if tls is None else Identity(tls)
    try:
        if identity is not None:
            check_client(identity)
    except TlsError as error:
        raise UsageError(f"--tls {tls}: {error}") from error
    return WorkerSettings(learner=learner, token=read_token(token_path), name=name, tls=identity)
