"""TLS on every port of a run; certificates and tokens for every caller."""

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.rpc.roles import Role
from protos.rpc.tls import Identity
from service.run.run_directory import RunDirectory
from tests.certificates import signed, trial_certificates
from tests.end_to_end.launched import (
    LaunchedRun,
    command,
    in_process_digest,
    launched,
    processes_naming,
    unspool,
)
from tests.support.experiments import QUADRATIC, toml_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial_certificates(tmp_path_factory.mktemp("certificates") / "trial")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("security") / "quadratic.toml"
    path.write_text(toml_of(QUADRATIC, "outer_steps=8", "aggregation.lanes=2", "checkpoint.every=4"))
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory, trial: Path, config: Path) -> Iterator[LaunchedRun]:
    """A run under mutual TLS that continues while tests send requests to it."""
    run_dir = tmp_path_factory.mktemp("endless") / "run"
    with launched(config, run_dir, *tls(trial), "--workers", "1", "--set", "outer_steps=100000") as run:
        run.wait_for_step(1)
        yield run


def tls(trial: Path) -> list[str]:
    return ["--backend", "local", "--set", f'tls.directory="{trial}"', "--set", "tls.mutual=true"]


def as_role(run: LaunchedRun, trial: Path, role: Role, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the token and the certificate of a role only."""
    token = RunDirectory(run.run_dir).token_path(role)
    files = {"UNSPOOL_TOKEN_FILE": str(token), "UNSPOOL_TLS": str(trial / role)}
    return subprocess.run(
        command(*arguments), env=os.environ | files, capture_output=True, text=True, check=False
    )


def test_a_run_under_mutual_tls_ends_with_the_same_theta(config: Path, trial: Path, tmp_path: Path) -> None:
    with launched(config, tmp_path / "run", *tls(trial), "--workers", "2") as run:
        assert run.finish() == 0, run.output()
        assert run.digest() == in_process_digest(config)
    left = json.loads((run.run_dir / "status.json").read_text())
    assert left["access_denials"] == {}


def test_secrets_are_in_no_command_line_and_in_no_environment(endless: LaunchedRun) -> None:
    directory = RunDirectory(endless.run_dir)
    for role in Role:
        assert processes_naming(directory.token(role)) == []
    environments = [
        (Path("/proc") / str(worker["pid"]) / "environ").read_text() for worker in endless.status()["workers"]
    ]
    assert len(environments) == 1
    assert not any(directory.token(role) in text for role in Role for text in environments)


def test_a_viewer_sees_the_run_and_cannot_steer_it(endless: LaunchedRun, trial: Path) -> None:
    seen = as_role(endless, trial, Role.VIEWER, "status", str(endless.run_dir), "--json")
    assert json.loads(seen.stdout)["state"] == "RUNNING"
    refused = as_role(endless, trial, Role.VIEWER, "stop", str(endless.run_dir))
    assert refused.returncode == 77
    assert "needs the role admin" in refused.stderr


def test_the_token_of_a_worker_gives_access_to_nothing_else(endless: LaunchedRun, trial: Path) -> None:
    refused = as_role(endless, trial, Role.WORKER, "status", str(endless.run_dir), "--json")
    assert json.loads(refused.stdout)["exit_code"] == 77
    assert endless.status()["access_denials"]["wrong_role"] >= 1


@pytest.mark.parametrize(
    ("days", "run_name", "exit_code", "words"),
    [
        (-1, "*", 2, "tls.crt: certificate has expired"),
        (2, "another-run", 77, "the certificate is for run 'another-run'"),
    ],
)
def test_a_worker_with_a_bad_certificate_ends_with_the_reason(
    endless: LaunchedRun, trial: Path, tmp_path: Path, days: int, run_name: str, exit_code: int, words: str
) -> None:
    files = signed(tmp_path / "bad", run=run_name, days=days, authority=trial / "authority")
    token = RunDirectory(endless.run_dir).token_path(Role.WORKER)
    learner = endless.status()["endpoints"]["learner"]
    refused = unspool("worker", "--learner", learner, "--token-file", token, "--tls", files, "--name", "x")
    assert refused.returncode == exit_code
    assert words in refused.stderr


def test_the_page_is_for_viewers(endless: LaunchedRun, trial: Path) -> None:
    url, viewer = endless.status()["endpoints"]["http"], Identity(trial / Role.VIEWER)
    assert read(f"{url}/healthz", viewer)[0] == 200
    assert read(f"{url}/status.json", viewer)[0] == 401
    token = RunDirectory(endless.run_dir).token(Role.VIEWER)
    code, page = read(f"{url}/status.json?token={token}", viewer)
    assert (code, json.loads(page)["state"]) == (200, "RUNNING")


def read(url: str, identity: Identity) -> tuple[int, str]:
    context: ssl.SSLContext = identity.client_context()
    try:
        with urllib.request.urlopen(url, context=context, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "learner.example"])
def test_an_open_run_is_refused_before_anything_starts(config: Path, tmp_path: Path, host: str) -> None:
    options = ["--backend", "local", "--run-dir", str(tmp_path / "run"), "--set", f'learner.host="{host}"']
    refused = unspool("launch", config, *options)
    assert refused.returncode == 2
    assert "learner.host" in refused.stderr
    assert "unspool certs init" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_expired_certificates_are_refused_before_anything_starts(
    config: Path, trial: Path, tmp_path: Path
) -> None:
    mine = trial_certificates(tmp_path / "mine")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (mine / "worker" / name).unlink()
    (mine / "worker").rmdir()
    signed(mine / "worker", days=-1, authority=mine / "authority")
    refused = unspool("launch", config, *tls(mine), "--run-dir", tmp_path / "run")
    assert refused.returncode == 2
    assert "worker/tls.crt: certificate has expired" in refused.stderr
    assert not (tmp_path / "run").exists()
