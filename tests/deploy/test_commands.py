import re
import tomllib
from pathlib import Path
from string import Template
from typing import Any

import pytest

from protos.rpc.connection import is_loopback
from service.commands.command import app
from service.config.run_config import RunConfig
from service.config.toml_document import with_overrides
from tests.deploy.deploy_files import DEPLOY
from tests.deploy.documented_commands import documented_commands
from unspool.experiment import Experiment

COMMANDS = documented_commands()
VARIABLES = {"host": "node0", "cpus": "8", "platform": "cpu", "UNSPOOL_POD_IP": "10.0.0.5", "tls": "/tls"}


class UnderstoodError(Exception):
    """Raised instead of running a command, with its parsed arguments."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def understood(*arguments: Any) -> None:
        raise UnderstoodError(*arguments)

    monkeypatch.setattr("service.supervise.preparation.prepare", understood)
    monkeypatch.setattr("service.commands.processes.run_worker", understood)
    monkeypatch.setattr("service.commands.cli.find_run", understood)
    monkeypatch.setattr("service.commands.admin_commands.find_run", understood)
    monkeypatch.setattr("service.commands.result_commands.pin_to", understood)
    monkeypatch.setattr("service.config.certificates.make_trial_certificates", understood)


def parsed(command: list[str]) -> tuple[Any, ...]:
    with pytest.raises(UnderstoodError) as caught:
        app.cli(prog="unspool", args=command)
    return caught.value.args


def test_commands_are_found_in_the_readme_the_batch_script_and_the_job() -> None:
    assert {"launch", "worker", "status", "scale", "stop", "export"} <= {command[0] for command in COMMANDS}
    launches = [command for command in COMMANDS if command[0] == "launch"]
    assert {"/config/run.toml", "$config", "deploy/run.toml"} <= {command[1] for command in launches}


@pytest.mark.usefixtures("parse_only")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_program_parses_every_documented_command(command: list[str]) -> None:
    assert parsed(command)


@pytest.mark.usefixtures("parse_only")
def test_an_unknown_option_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app.cli(prog="unspool", args=["launch", "run.toml", "--worker", "4"])
    assert "--worker" in capsys.readouterr().err


@pytest.mark.usefixtures("parse_only")
@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if command[0] == "launch"], ids=lambda command: command[1]
)
def test_the_settings_of_a_launch_are_a_valid_configuration(command: list[str]) -> None:
    _, overrides, run_dir, *_ = parsed([Template(word).safe_substitute(VARIABLES) for word in command])
    config = RunConfig.from_tables(
        with_overrides(tomllib.loads((DEPLOY / "run.toml").read_text()), overrides)
    )
    assert run_dir is not None
    assert not is_loopback(config.learner.host)
    assert not config.learner.insecure
    assert config.tls.mutual


def test_the_example_configuration_can_be_trained() -> None:
    text = (DEPLOY / "run.toml").read_text()
    assert RunConfig.from_tables(tomllib.loads(text)).aggregation.lanes == Experiment.from_toml(text).lanes


def test_the_readme_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (DEPLOY / "README.md").read_text())
    assert links
    assert [link for link in links if not (DEPLOY / Path(link)).exists()] == []
