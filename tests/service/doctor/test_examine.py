"""What `unspool doctor` finds, on this machine and on worse ones."""

import json
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from protos.exit_codes import ExitCode
from service.commands.command import run_command
from service.config.certificates import make_trial_certificates
from service.config.run_config import RunConfig
from service.config.toml_document import read_tables, with_overrides
from service.display.tables import Finding
from service.doctor.examine import certificates, examine, learner_load, timeouts
from unspool.config.config_error import ConfigError

QUADRATIC = Path(__file__).parents[3] / "examples" / "quadratic_local.toml"
MIB = 2**20


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config_with(*overrides: str) -> RunConfig:
    return RunConfig.from_tables(with_overrides(read_tables(QUADRATIC), overrides))


def troubles(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(one.about, one.state) for one in findings if one.state != "ok"]


def test_this_machine_is_fit_for_a_small_run() -> None:
    findings = examine(QUADRATIC, ["workers.count=1"])
    assert troubles(findings) == []
    assert {"python", "jaxlib", "ray", "learner.port", "timeouts", "disk", "capacity"} <= {
        one.about for one in findings
    }


def test_the_machine_is_examined_without_a_configuration() -> None:
    assert troubles(examine(None, [])) == []


def test_a_run_directory_is_examined_by_its_configuration(tmp_path: Path) -> None:
    shutil.copyfile(QUADRATIC, tmp_path / "config.toml")
    assert any(one.about == "capacity" for one in examine(tmp_path, []))


def test_a_configuration_that_is_wrong_is_told_as_check_does() -> None:
    with pytest.raises(ConfigError, match="seed"):
        examine(QUADRATIC, ["seed=-1"])


def test_every_trouble_has_a_remedy() -> None:
    overrides = ["workers.count=200", "liveness.orphan_ttl_s=1"]
    findings = examine(QUADRATIC, overrides)
    assert len(troubles(findings)) >= 4
    assert all(one.remedy for one in findings if one.state != "ok")


def test_a_problem_is_an_exit_code_of_its_own_and_a_warning_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = ["doctor", str(QUADRATIC), "--json", "--set"]
    assert run_command([*said, "workers.count=5"]) == ExitCode.OK
    assert any(one["state"] == "warning" for one in json.loads(capsys.readouterr().out))
    assert run_command([*said, "liveness.orphan_ttl_s=20"]) == ExitCode.UNFIT


def test_remedies_are_shown_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["doctor", str(QUADRATIC), "--set", "liveness.orphan_ttl_s=20"]) == ExitCode.UNFIT
    assert "-> raise liveness.orphan_ttl_s above 30" in capsys.readouterr().out


@pytest.mark.parametrize("path", [None, QUADRATIC])
def test_variables_that_theta_could_depend_on_are_named(
    monkeypatch: pytest.MonkeyPatch, path: Path | None
) -> None:
    assert ("environment", "warning") not in troubles(examine(path, []))
    for name, value in (("JAX_ENABLE_X64", "1"), ("XLA_FLAGS", "--xla_a=1"), ("JAX_DISABLE_JIT", "1")):
        monkeypatch.setenv(name, value)
    said = [f"{one.text}; {one.remedy}" for one in examine(path, []) if one.about == "environment"]
    assert len(said) == 3
    assert any("JAX_ENABLE_X64=1" in one and "numerics.enable_x64" in one for one in said)
    assert any("XLA_FLAGS=--xla_a=1" in one and "numerics.environment.XLA_FLAGS" in one for one in said)


def test_a_number_of_threads_that_the_configuration_overrules_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PJRT_NPROC", "7")
    (said,) = [one.text for one in examine(QUADRATIC, []) if one.about == "environment"]
    assert "PJRT_NPROC=7 is ignored" in said


def test_a_port_of_the_runs_own_learner_is_none(tmp_path: Path) -> None:
    shutil.copyfile(QUADRATIC, tmp_path / "config.toml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        set_port = [f"learner.port={number}"]
        assert ("learner.port", "problem") in troubles(examine(tmp_path, set_port))
        facts = {"run": "run", "pid": 1, "term": 1, "admin": "a:1", "http": "a:2"}
        (tmp_path / "endpoints.json").write_text(json.dumps({**facts, "learner": f"127.0.0.1:{number}"}))
        assert ("learner.port", "problem") not in troubles(examine(tmp_path, set_port))


def test_a_wrong_timeout_is_a_problem() -> None:
    assert troubles(list(timeouts(config_with("liveness.orphan_ttl_s=20")))) == [("timeouts", "problem")]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
@pytest.mark.parametrize(("days", "expected"), [(30, "ok"), (3, "warning")])
def test_certificates_are_judged_by_what_is_left_of_them(tmp_path: Path, days: int, expected: str) -> None:
    make_trial_certificates(tmp_path / "tls", [], "*", days)
    findings = list(certificates(config_with(f"tls.directory='{tmp_path / 'tls'}'")))
    assert [(one.about.split()[-1], one.state) for one in findings] == [
        ("server", expected),
        ("worker", expected),
        ("admin", expected),
    ]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
def test_a_certificate_for_another_name_is_a_problem(tmp_path: Path) -> None:
    make_trial_certificates(tmp_path / "tls", [], "*", 30)
    tls = f"tls.directory='{tmp_path / 'tls'}'"
    server, *_ = certificates(config_with(tls, "learner.advertise='learner.example'"))
    assert (server.state, server.about) == ("problem", "certificate of server")


def test_workers_beyond_the_lanes_are_said() -> None:
    config = config_with("workers.count=9", "aggregation.lanes=4")
    assert troubles(list(learner_load(config, 4096))) == [("workers", "warning")]


@pytest.mark.parametrize(("theta_bytes", "expected"), [(MIB, []), (8 * MIB, [("relays", "warning")])])
def test_a_large_theta_calls_for_relays(theta_bytes: int, expected: list[tuple[str, str]]) -> None:
    config = config_with("workers.count=4", "aggregation.lanes=4")
    assert troubles(list(learner_load(config, theta_bytes))) == expected


def test_the_capacity_is_told_in_gradients_and_workers() -> None:
    capacity, *_ = learner_load(config_with("workers.count=2"), 10 * 1024)
    assert "2,000 gradients/s" in capacity.text
    assert "256 workers" in capacity.text
