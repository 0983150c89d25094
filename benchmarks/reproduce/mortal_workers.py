"""A run of the service whose worker process dies by SIGKILL after a given number of estimates."""

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


class MortalRun:
    """A learner, and a worker that is started again as often as it dies. Nothing is left after the block.

    Attributes:
        deaths: so far.
    """

    def __init__(self, run_dir: Path, config: str) -> None:
        self._run = RunDirectory(run_dir)
        self._run.create(write_tables(RunConfig.from_tables(tomllib.loads(config)).to_tables()))
        self._environment = environment(Devices(cpu_threads=1), run_dir / "compiled")
        self._environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        # Who has imported everything forks a worker in a fraction of the second that importing takes.
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(
            ["benchmarks.reproduce.mortal_workers", "workers.unrolling.worker"]
        )
        self._worker: Any = None
        self.deaths = 0

    def __enter__(self) -> "MortalRun":
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

    def train(self, lifetimes: Iterator[int]) -> dict[int, bytes]:
        """Let a worker live and die until the run is over; returns thetas that were seen, by outer step.

        Raises:
            RuntimeError: the learner did not finish.
        """
        address = self._address()
        thetas: dict[int, bytes] = {}
        with open_channel(address, None) as channel, connected(self._run) as admin:
            stub = learner_pb2_grpc.LearnerStub(channel)
            while self._learner.poll() is None:
                self._keep_alive(address, lifetimes)
                thetas |= self._newest(admin, stub)
                multiprocessing.connection.wait([self._worker.sentinel], _POLL_S)
        if self._learner.returncode != 0:
            raise RuntimeError(f"the learner failed: {self._run.log_path('learner').read_text()}")
        return thetas

    def _keep_alive(self, address: str, lifetimes: Iterator[int]) -> None:
        if self._worker is not None:
            if self._worker.exitcode in (None, 0):
                return
            self.deaths += 1
        token, log = str(self._run.token_path(Role.WORKER)), str(self._run.log_path("w0"))
        arguments = (address, token, next(lifetimes), log, self._environment)
        self._worker = self._forks.Process(target=_live_and_die, args=arguments)
        self._worker.start()

    def _newest(self, admin: AdminClient, stub: learner_pb2_grpc.LearnerStub) -> dict[int, bytes]:
        """The newest theta, if it is still there when it is asked for."""
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


def _live_and_die(address: str, token: str, lifetime: int, log: str, variables: dict[str, str]) -> None:
    """Be a worker for `lifetime` estimates, and die in the middle of the next."""
    import jax

    for variable, value in variables.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_compilation_cache_dir", variables["JAX_COMPILATION_CACHE_DIR"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(descriptor, 2)
    estimate, estimates = Unroller.estimate, 0

    def estimate_or_die(*arguments: Any) -> Any:
        nonlocal estimates
        made = estimate(*arguments)
        estimates += 1
        if estimates > lifetime:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    Unroller.estimate = estimate_or_die  # type: ignore[method-assign]  # which is how this worker dies
    sys.exit(run_worker(address, Path(token), "w0", Devices(cpu_threads=1)))
