import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.deploy.deploy_files import DEPLOY

SCRIPT = DEPLOY / "slurm/unspool.sbatch"
pytestmark = pytest.mark.timeout(60)

# Stub programs that record their calls, and exit when a file appears.
STAND_INS = {
    "python": f"""
        [ "$1" = -m ] || exec {sys.executable} "$@"
        echo "$*" >> "$NOTES/$3"
        [ "$3" = certs ] && exit 0
        [ "$3" = launch ] && exec launch "${{10}}"
        echo "$PJRT_NPROC $JAX_PLATFORMS" > "$NOTES/environment"
        echo started > "$NOTES/worker-started"
        [ -z "${{CRASH:-}}" ] || exit 70
        until [ -e "$NOTES/session-closed" ]; do sleep 0.02; done""",
    "launch": """
        [ -z "${REFUSE:-}" ] || exit 2
        trap 'touch "$NOTES/stopped" "$NOTES/session-closed"; exit 0' TERM
        touch "$1/token-worker"
        echo '{"learner": "node0:7431"}' > "$1/endpoints.json"
        until [ -e "$NOTES/session-closed" ]; do sleep 0.02; done
        exit "${LAUNCH_EXIT:-0}" """,
    "srun": """
        echo "$*" >> "$NOTES/srun"
        while [[ $1 == --* ]]; do shift; done
        SLURM_PROCID=3 exec "$@" """,
    "scontrol": 'echo "$*" >> "$NOTES/scontrol"',
    "hostname": "echo node0",
}


class Job:
    """The script in a simulated allocation."""

    def __init__(self, folder: Path, variables: Mapping[str, str], script: Path) -> None:
        self.notes, self.run_dir, stand_ins = folder / "notes", folder / "run", folder / "bin"
        for made in (self.notes, self.run_dir, stand_ins):
            made.mkdir(exist_ok=True)
        for name, body in STAND_INS.items():
            (stand_ins / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
            (stand_ins / name).chmod(0o755)
        os.mkfifo(self.notes / "worker-started")
        environment = {"PATH": f"{stand_ins}:{os.environ['PATH']}", "NOTES": str(self.notes)}
        self.process = subprocess.Popen(
            ["bash", script, "run.toml", self.run_dir],
            env={**environment, "SLURM_JOB_ID": "42", **variables},
        )

    def end(self) -> None:
        """End all processes, also if the script has not exited."""
        (self.notes / "session-closed").touch()
        self.process.kill()
        self.process.wait()

    def await_workers(self) -> "Job":
        (self.notes / "worker-started").read_text()
        return self

    def exit_code(self) -> int:
        return self.process.wait()

    def note(self, name: str) -> str | None:
        path = self.notes / name
        return path.read_text().strip() if path.exists() else None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def start_job(script: Path = SCRIPT, **variables: str) -> Job:
        jobs.append(Job(tmp_path, variables, script))
        return jobs[-1]

    yield start_job
    for job in jobs:
        job.end()


def test_the_syntax_of_the_script_is_valid() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_workers_connect_to_the_learner_that_the_run_directory_names(
    start: Callable[..., Job],
) -> None:
    job = start().await_workers()
    (job.notes / "session-closed").touch()
    assert job.exit_code() == 0
    token = job.run_dir / "token-worker"
    tls = str(job.note("certs")).split()[4]
    assert job.note("worker") == (
        f"-m service worker --learner node0:7431 --token-file {token} --tls {tls}/worker --name w3"
    )
    assert "--set learner.host='node0'" in str(job.note("launch"))


def test_certificates_of_an_allocation_are_deleted_at_its_end(
    start: Callable[..., Job],
) -> None:
    job = start().await_workers()
    _, _, _, _, folder, *hosts = str(job.note("certs")).split()
    assert hosts[:2] == ["--host", "node0"]
    assert f"--set tls.directory='{folder}' --set tls.mutual=true" in str(job.note("launch"))
    (job.notes / "session-closed").touch()
    job.exit_code()
    assert not Path(folder).exists()


def test_an_existing_folder_of_certificates_can_be_used(start: Callable[..., Job], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    job = start(UNSPOOL_TLS_DIRECTORY=str(mine)).await_workers()
    (job.notes / "session-closed").touch()
    assert (job.exit_code(), job.note("certs"), mine.exists()) == (0, None, True)
    assert f"--tls {mine}/worker" in str(job.note("worker"))


def test_a_finished_run_is_not_requeued(start: Callable[..., Job]) -> None:
    job = start().await_workers()
    (job.notes / "session-closed").touch()
    assert (job.exit_code(), job.note("scontrol"), job.note("stopped")) == (0, None, None)


def test_near_its_time_limit_the_run_stops_and_the_job_is_requeued(start: Callable[..., Job]) -> None:
    job = start().await_workers()
    job.process.send_signal(signal.SIGUSR1)
    assert (job.exit_code(), job.note("scontrol"), job.note("stopped")) == (0, "requeue 42", "")


def test_a_cancelled_run_stops_and_is_not_requeued(start: Callable[..., Job]) -> None:
    job = start().await_workers()
    job.process.send_signal(signal.SIGTERM)
    assert (job.exit_code(), job.note("scontrol"), job.note("stopped")) == (0, None, "")


def test_a_launch_that_fails_ends_the_job_with_its_exit_code(start: Callable[..., Job]) -> None:
    job = start(REFUSE="yes")
    assert (job.exit_code(), job.note("srun")) == (2, None)


def test_the_job_has_the_exit_code_of_a_run_that_fails_later(start: Callable[..., Job]) -> None:
    job = start(LAUNCH_EXIT="70").await_workers()
    (job.notes / "session-closed").touch()
    assert job.exit_code() == 70


def test_workers_use_the_cpus_in_the_configuration_of_the_run(start: Callable[..., Job]) -> None:
    job = start(SLURM_CPUS_PER_TASK="8").await_workers()
    (job.notes / "session-closed").touch()
    assert job.exit_code() == 0
    assert "--set workers.cpu_threads=8 --set workers.platform=cpu" in str(job.note("launch"))
    assert job.note("environment") == "8 cpu"


def test_a_run_without_workers_stops_and_fails(start: Callable[..., Job], tmp_path: Path) -> None:
    impatient = tmp_path / "impatient.sbatch"
    impatient.write_text(SCRIPT.read_text().replace("grace_s=60", "grace_s=1"))
    job = start(impatient, CRASH="yes").await_workers()
    assert (job.exit_code(), job.note("stopped")) == (1, "")


def test_addresses_of_a_previous_allocation_are_not_used(start: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/endpoints.json").write_text('{"learner": "elsewhere:1"}')
    job = start().await_workers()
    (job.notes / "session-closed").touch()
    assert job.exit_code() == 0
    assert "node0:7431" in str(job.note("worker"))
