"""The processes of a run from their command to their exit code: learner, worker, relay.

What is heavy is imported inside the functions.
"""

import socket
from collections.abc import Callable
from pathlib import Path

from protos.exit_codes import ExitCode, UsageError, error_for
from protos.rpc.roles import Role
from protos.rpc.tls import Identity, TlsError, check_client
from service.config.run_config import RunConfig
from service.config.toml_document import read_tables
from service.display.output import report_notes
from service.run.environments import device_environment, pin_learner
from service.run.last_status import stored_status
from service.run.run_directory import RunDirectory, read_token
from workers.bootstrap import Devices
from workers.settings import WorkerSettings


def run_learner(run: RunDirectory, *, takeover: bool = False) -> int:
    """Be the learner of `run`, from its newest checkpoint on; return the exit code.

    Args:
        run: whose.
        takeover: take it from a learner that has it.

    Raises:
        UnspoolError: it cannot be.
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
    """Return what the learner has left behind of the end of its run, in one line."""
    status = stored_status(run)
    if status is None:
        return "the run failed, and its last status could not be written"
    said = f"{status.state.lower()} at step {status.outer_step}/{status.outer_steps}"
    return ": ".join([said, "; ".join(status.problems)]) if status.problems else said


def run_worker(
    learner: str, token_path: Path, name: str | None, devices: Devices, tls: Path | None = None
) -> int:
    """Be a worker of the learner at `learner`, on `devices`; return the exit code.

    Raises:
        RunNotFoundError: there is no token at `token_path`.
        UsageError: the files in the folder `tls` cannot be used.
    """
    from workers.main import run

    settings = _worker_settings(learner, token_path, name or socket.gethostname(), tls)
    return run(settings, device_environment(devices))


def run_relay(
    learner: str,
    token_path: Path,
    name: str | None,
    listen: tuple[str, int],
    max_workers: int,
    tls: Path | None,
    is_tls_mutual: bool,
    announce: Callable[[str], None],
) -> int:
    """Be a relay of the learner at `learner`, listening on `listen`; return the exit code.

    Args:
        learner: "host:port" of the learner's data plane, or of another relay.
        token_path: holds the run's token for workers, which the relay presents and demands.
        name: by which the learner knows it; None: after this host.
        listen: host and port.
        max_workers: behind it at once.
        tls: folder of its TLS files.
        is_tls_mutual: whether workers must show client certificates.
        announce: told "host:port" once workers may come.

    Raises:
        RunNotFoundError: there is no token at `token_path`.
        PortInUseError: it cannot listen there.
        UsageError: the files in the folder `tls` cannot be used.
    """
    from workers.relay.main import run
    from workers.relay.relay import RelaySettings

    upstream = _worker_settings(learner, token_path, name or f"relay-{socket.gethostname()}", tls)
    host, port = listen
    try:
        return run(RelaySettings(upstream, host, port, max_workers, is_tls_mutual), announce)
    except (OSError, TlsError, ValueError) as error:
        raise UsageError(str(error)) from error


def _worker_settings(learner: str, token_path: Path, name: str, tls: Path | None) -> WorkerSettings:
    identity = None if tls is None else Identity(tls)
    try:
        if identity is not None:
            check_client(identity)
    except TlsError as error:
        raise UsageError(f"--tls {tls}: {error}") from error
    return WorkerSettings(learner=learner, token=read_token(token_path), name=name, tls=identity)
