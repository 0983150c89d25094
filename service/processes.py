"""The two bare processes of a run: the learner, and a worker. What is heavy is imported inside them."""

import socket
from pathlib import Path

from service.config import RunConfig
from service.environments import device_environment
from service.exits import RunNotFoundError, error_for
from service.run_directory import RunDirectory
from service.toml_document import read_tables
from workers.bootstrap import Devices


def run_learner(run: RunDirectory) -> int:
    """Be the learner of `run`, from its newest checkpoint on; return the exit code.

    Raises:
        ServiceError: it cannot be.
    """
    from learner.errors import LearnerError
    from learner.main import serve
    from learner.settings import LearnerSettings
    from unspool.experiment import Experiment

    config = RunConfig.from_tables(read_tables(run.config_path))
    settings = LearnerSettings(
        run_dir=run.path.resolve(),
        run_id=run.name,
        experiment=Experiment.from_tables(config.training_tables()),
        experiment_toml=config.training_toml(),
        config_sha256=run.accepted_sha256() or config.training_sha256(),
        mode=config.aggregation.mode,
        batch=config.aggregation.batch_size,
        max_staleness=config.aggregation.staleness_window,
        credits_per_lane=config.aggregation.credits_per_lane,
        host=config.learner.host,
        port=config.learner.port,
        admin_port=config.learner.admin_port,
        http_port=config.learner.http_port,
        token=run.token(),
        heartbeat_s=config.liveness.heartbeat_s,
        lease_ttl_s=config.liveness.lease_ttl_s,
        orphan_ttl_s=config.liveness.orphan_ttl_s,
        checkpoint_every=config.checkpoint.every,
        checkpoint_keep=config.checkpoint.keep,
        quorum=config.aggregation.share_needed,
        grace_s=config.aggregation.patience_s,
        workers_desired=config.workers.count,
        max_workers=config.workers.max_count,
    )
    try:
        exit_code: int = serve(settings)
    except LearnerError as error:
        raise error_for(error.exit_code, str(error)) from error
    return exit_code


def run_worker(learner: str, token_path: Path, name: str | None, devices: Devices) -> int:
    """Be a worker of the learner at `learner`, on `devices`; return the exit code.

    Raises:
        RunNotFoundError: there is no token at `token_path`.
    """
    from workers.main import run
    from workers.settings import WorkerSettings

    try:
        token = token_path.read_text().strip()
    except OSError as error:
        raise RunNotFoundError(f"--token-file {token_path} cannot be read ({error.strerror})") from error
    settings = WorkerSettings(learner=learner, token=token, name=name or socket.gethostname())
    return run(settings, device_environment(devices))
