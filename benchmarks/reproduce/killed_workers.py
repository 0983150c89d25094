"""A run of the service whose worker process is killed by SIGKILL after a given number of estimates."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc

from protos.exit_codes import UnspoolError
from protos.rpc.channels import open_channel
from protos.rpc.roles import Role
from protos.unspool.v1 import learner_pb2, learner_pb2_grpc
from service.commands.processes import run_worker
from service.config.run_config import RunConfig
from service.config.toml_document import write_tables
from service.run.client import AdminClient, connected
from service.run.run_directory import RunDirectory
from workers.bootstrap import Devices, environment
from workers.unrolling.unroller import Unroller

_START_S: Final = 60.0
_POLL_S: Final = 0.01
_DEADLINE_S: Final = 10.0


class KilledWorkerRun:
    """A learner, and a worker that is restarted after each kill. Both are ended when the block ends.

    Attributes:
        kills: number of kills so far.
    """

    def __init__(self, run_dir: Path, config: str) -> None:
        self._run = RunDirectory(run_dir)
        self._run.create(write_tables(RunConfig.from_tables(tomllib.loads(config)).to_tables()))
        self._environment = environment(Devices(cpu_threads=1), run_dir / "compiled")
        self._environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        # A server that has imported the modules forks a worker in a fraction of the time that imports take.
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(
            ["benchmarks.reproduce.killed_workers", "workers.unrolling.worker"]
        )
        self._worker: Any = None
        self.kills = 0

    def __enter__(self) -> "KilledWorkerRun":
        command = [sys.executable, "-m", "service", "learner", str(self._run.path)]
        with self._run.log_path("learner").open("wb") as log:
            self._learner = subprocess.Popen(
                command, env={**os.environ, **self._environment}, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._learner.kill()
        self._learner.wait()
        if self._worker is not None:
            self._worker.kill()
            self._worker.join()

    def train(self, estimates_until_kills: Iterator[int]) -> dict[int, bytes]:
        """Run and restart the worker until the run has finished; returns the thetas seen, by outer step.

        Raises:
            RuntimeError: the learner did not finish.
        """
        address = self._address()
        thetas: dict[int, bytes] = {}
        with open_channel(address, None) as channel, connected(self._run) as admin:
            stub = learner_pb2_grpc.LearnerStub(channel)
            while self._learner.poll() is None:
                self._restart_worker(address, estimates_until_kills)
                thetas |= self._newest(admin, stub)
                multiprocessing.connection.wait([self._worker.sentinel], _POLL_S)
        if self._learner.returncode != 0:
            raise RuntimeError(f"the learner failed: {self._run.log_path('learner').read_text()}")
        return thetas

    def _restart_worker(self, address: str, estimates_until_kills: Iterator[int]) -> None:
        if self._worker is not None:
            if self._worker.exitcode in (None, 0):
                return
            self.kills += 1
        token, log = str(self._run.token_path(Role.WORKER)), str(self._run.log_path("w0"))
        arguments = (address, token, next(estimates_until_kills), log, self._environment)
        self._worker = self._forks.Process(target=_work_until_killed, args=arguments)
        self._worker.start()

    def _newest(self, admin: AdminClient, stub: learner_pb2_grpc.LearnerStub) -> dict[int, bytes]:
        """The newest theta, unless the learner has dropped it before the request arrives."""
        metadata = (("authorization", f"Bearer {self._run.token(Role.WORKER)}"),)
        with contextlib.suppress(UnspoolError, grpc.RpcError):
            outer_step = admin.status().outer_step
            request = learner_pb2.GetThetaRequest(outer_step=outer_step)
            chunks = stub.GetTheta(request, metadata=metadata, timeout=_DEADLINE_S)
            return {outer_step: b"".join(chunk.data for chunk in chunks)}
        return {}

    def _address(self) -> str:
        give_up_at = time.monotonic() + _START_S
        while time.monotonic() < give_up_at:
            with contextlib.suppress(UnspoolError):
                return self._run.endpoints().learner
            time.sleep(_POLL_S)
        raise RuntimeError(f"the learner does not listen: {self._run.log_path('learner').read_text()}")


def _work_until_killed(address: str, token: str, budget: int, log: str, variables: dict[str, str]) -> None:
    """Work for `budget` estimates, then kill this process in the middle of the next."""
    import jax

    for variable, value in variables.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_compilation_cache_dir", variables["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 2)
    estimate, estimates = Unroller.estimate, 0

    def estimate_or_kill(*arguments: Any) -> Any:
        nonlocal estimates
        made = estimate(*arguments)
        estimates += 1
        if estimates > budget:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    Unroller.estimate = estimate_or_kill  # type: ignore[method-assign]  # the kill happens here
    sys.exit(run_worker(address, Path(token), "w0", Devices(cpu_threads=1)))
