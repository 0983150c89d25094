"""A run that is launched, monitored and changed through the command line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from protos.exit_codes import UnspoolError
from protos.messages import as_dict
from service.run.checkpoints import checkpoints_of
from service.run.client import connected
from service.run.environments import device_environment
from service.run.run_directory import RunDirectory
from tests.support.patience import PATIENCE_S
from workers.bootstrap import Devices

IN_PROCESS = """
import sys, tomllib, jax
from pathlib import Path
from unspool import serialization
from unspool.experiment import Experiment
from unspool.config.numerics import Numerics
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner

text = Path(sys.argv[1]).read_text()
Numerics.from_tables(tomllib.loads(text)).apply()
experiment = Experiment.from_toml(text)
estimators = [experiment.estimator(lane) for lane in range(experiment.lanes)]
learner = SingleMachineGradientLearner(experiment.init, estimators, experiment.outer_optimizer)
key = jax.random.PRNGKey(experiment.seed)
state = learner.init(key)
for _ in range(experiment.outer_steps):
    state, _, _ = learner.update(state, key)
    print(serialization.digest(learner.get_meta_params(state)))
"""


def command(*arguments: str | Path) -> list[str]:
    """Return a command line of `python -m service`."""
    return [sys.executable, "-m", "service", *map(str, arguments)]


def unspool(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, in the folder `cwd`."""
    return subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def answer(*arguments: str | Path) -> Any:
    """Return the JSON output of a command that must succeed."""
    done = unspool(*arguments, "--json")
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


class LaunchedRun:
    """A run in the foreground of a child process."""

    def __init__(self, config: Path, run_dir: Path, *options: str, variables: Mapping[str, str]) -> None:
        self.run_dir = run_dir
        self._output = run_dir.with_suffix(".out").open("a")
        self.process = subprocess.Popen(
            command("launch", config, "--run-dir", run_dir, *options),
            env=os.environ | dict(variables),
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def status(self) -> dict[str, Any]:
        """Return the status as in `status --json`, without waiting; empty if the learner is down."""
        with contextlib.suppress(UnspoolError), connected(RunDirectory(self.run_dir)) as admin:
            return dict(as_dict(admin.status()))
        return {}

    def wait_for(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for and return the first status for which `what` is true."""
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            status = self.status()
            if status and what(status):
                return status
            assert self.process.poll() is None, f"the run has ended: {self.output()}"
        raise AssertionError(f"not within {PATIENCE_S} s; last status: {self.status()}\n{self.output()}")

    def wait_for_step(self, step: int) -> dict[str, Any]:
        """Wait for and return the first status at or after outer step `step`."""
        return self.wait_for(lambda status: status["outer_step"] >= step)

    def finish(self) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(PATIENCE_S)

    def output(self) -> str:
        """Return the output so far."""
        return self.run_dir.with_suffix(".out").read_text()

    def digest(self) -> str:
        """Return the digest of the newest checkpoint's theta."""
        return checkpoints_of(RunDirectory(self.run_dir))[-1].theta_sha256

    def pid_of_learner(self) -> int:
        """Return the learner's process id from `endpoints.json`."""
        return int(json.loads((self.run_dir / "endpoints.json").read_text())["pid"])

    def end(self) -> None:
        """End all remaining processes of the run."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._output.close()


@contextlib.contextmanager
def launched(
    config: Path, run_dir: Path, *options: str, variables: Mapping[str, str] = MappingProxyType({})
) -> Iterator[LaunchedRun]:
    """Return a run that ends with the block; `variables` are added to its environment."""
    run = LaunchedRun(config, run_dir, *options, variables=variables)
    try:
        yield run
    finally:
        run.end()


def in_process_digests(config: Path) -> list[str]:
    """Return theta's digest after each outer step of a single-process loop over the same lanes.

    The process has neither learner nor workers. It shares the compilation cache of launched runs.
    """
    environment = os.environ | device_environment(Devices(cpu_threads=1))
    program = [sys.executable, "-c", IN_PROCESS, str(config)]
    done = subprocess.run(program, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


def in_process_digest(config: Path) -> str:
    """Return theta's final digest from a single-process loop over the same lanes."""
    return in_process_digests(config)[-1]


def processes_naming(text: str) -> list[str]:
    """Return the command lines of other running processes that contain `text`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if text in line:
                    found.append(line)
    return found
