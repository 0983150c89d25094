"""The commands `learner`, `worker` and `relay`, up to the processes that they start."""

import json
from pathlib import Path
from typing import Any

import pytest

from protos.exit_codes import ExitCode, FailedError
from protos.rpc.roles import Role
from service.commands.command import run_command
from service.commands.processes import run_learner, run_worker
from service.run.run_directory import RunDirectory
from tests.service.commands.shell import answered, reported
from workers.bootstrap import Devices
from workers.settings import WorkerSettings

LEARNER = "127.0.0.1:1"


def test_a_worker_without_a_token_file_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, error = reported(capsys, "worker", "--learner", "127.0.0.1:1", "--token-file", "none")
    assert exit_code == ExitCode.NOT_FOUND
    assert "token file none cannot be read" in error


def test_a_worker_takes_its_token_file_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSPOOL_TOKEN_FILE", "elsewhere")
    _, error = reported(capsys, "worker", "--learner", "127.0.0.1:1")
    assert "token file elsewhere cannot be read" in error
    monkeypatch.delenv("UNSPOOL_TOKEN_FILE")
    exit_code, error = reported(capsys, "worker", "--learner", "127.0.0.1:1")
    assert exit_code == ExitCode.USAGE
    assert "$UNSPOOL_TOKEN_FILE" in error


def test_a_workers_tls_files_that_are_not_there_are_named(
    capsys: pytest.CaptureFixture[str], run: RunDirectory, tmp_path: Path
) -> None:
    token, nowhere = run.token_path(Role.WORKER), tmp_path / "nowhere"
    exit_code, error = reported(
        capsys, "worker", "--learner", "127.0.0.1:1", "--token-file", token, "--tls", nowhere
    )
    assert exit_code == ExitCode.USAGE
    assert f"{nowhere / 'ca.crt'}: cannot be read" in error


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """With what processes would be started; each ends with exit code 0."""
    started: dict[str, Any] = {}

    def worker(settings: WorkerSettings, environment: dict[str, str]) -> int:
        started["worker"] = (settings, environment)
        return 0

    def relay(settings: Any, announce: Any) -> int:
        started["relay"] = settings
        announce("127.0.0.1:4711")
        return 0

    monkeypatch.setattr("workers.main.run", worker)
    monkeypatch.setattr("workers.relay.relay.run", relay)
    return started


def test_a_worker_starts_with_its_token_name_and_devices(started: dict[str, Any], run: RunDirectory) -> None:
    token = run.token_path(Role.WORKER)
    assert run_worker(LEARNER, token, "w7", Devices(cpu_threads=3, cpu_devices=2)) == 0
    settings, environment = started["worker"]
    assert (settings.learner, settings.token, settings.name) == (LEARNER, run.token(Role.WORKER), "w7")
    assert (environment["PJRT_NPROC"], environment["JAX_NUM_CPU_DEVICES"]) == ("3", "2")


def test_a_worker_without_a_name_is_named_after_its_host(
    started: dict[str, Any], run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node7")
    assert (
        run_command(["worker", "--learner", LEARNER, "--token-file", str(run.token_path(Role.WORKER))]) == 0
    )
    assert started["worker"][0].name == "node7"


def test_a_relay_announces_its_address(
    started: dict[str, Any], run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    token = run.token_path(Role.WORKER)
    options = ["--token-file", token, "--name", "r0", "--max-workers", 9]
    assert answered(capsys, "relay", "--learner", LEARNER, *options) == (0, {"address": "127.0.0.1:4711"})
    settings = started["relay"]
    assert (settings.upstream.name, settings.upstream.learner, settings.max_workers) == ("r0", LEARNER, 9)


def test_a_relay_that_cannot_start_names_the_reason(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> int:
        raise ValueError("beyond loopback a relay needs TLS")

    monkeypatch.setattr("workers.relay.relay.run", fail)
    token = run.token_path(Role.WORKER)
    exit_code, error = reported(capsys, "relay", "--learner", LEARNER, "--token-file", token)
    assert (exit_code, error) == (ExitCode.USAGE, "unspool: beyond loopback a relay needs TLS\n")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How the learner serves: the exit code to return, and with what it was called."""
    served: dict[str, Any] = {"exit_code": 0}

    def serve(settings: Any, *, takeover: bool) -> int:
        served.update(settings=settings, takeover=takeover)
        return int(served["exit_code"])

    monkeypatch.setattr("learner.main.serve", serve)
    monkeypatch.setattr("service.commands.processes.pin_learner", lambda config: [])
    return served


def test_a_learner_serves_its_run(serve: dict[str, Any], run: RunDirectory) -> None:
    assert run_command(["learner", str(run.path), "--takeover"]) == ExitCode.OK
    assert (serve["settings"].run_id, serve["takeover"]) == ("run", True)
    assert serve["settings"].tokens.worker == run.token(Role.WORKER)


def test_a_learner_of_an_accepted_configuration_resumes_from_the_earlier_ones_checkpoints(
    serve: dict[str, Any], run: RunDirectory
) -> None:
    run.accept_checkpoints_of("c" * 64)
    run_learner(run)
    assert serve["settings"].config_sha256 == "c" * 64


@pytest.mark.parametrize(
    ("problems", "message"),
    [([], "failed at step 3/9"), (["theta is not finite"], "failed at step 3/9: theta is not finite")],
)
def test_a_failed_learner_ends_with_the_outcome_that_it_stored(
    serve: dict[str, Any], run: RunDirectory, problems: list[str], message: str
) -> None:
    (run.path / "term").write_text("1")
    status = {"state": "FAILED", "term": 1, "outer_step": 3, "outer_steps": 9, "problems": problems}
    (run.path / "status.json").write_text(json.dumps(status))
    serve["exit_code"] = ExitCode.FAILED
    with pytest.raises(FailedError) as caught:
        run_learner(run)
    assert str(caught.value) == message


def test_a_failed_learner_without_a_stored_status_is_named_so(
    serve: dict[str, Any], run: RunDirectory
) -> None:
    serve["exit_code"] = ExitCode.FAILED
    with pytest.raises(FailedError, match="its last status could not be written"):
        run_learner(run)
