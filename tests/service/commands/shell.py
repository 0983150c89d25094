"""Commands as a shell runs them, and their answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.commands.command import run_command

QUADRATIC = Path(__file__).parents[3] / "examples" / "quadratic_local.toml"


def answered(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    """Return the exit code and the JSON answer of a command."""
    exit_code = run_command([*map(str, arguments), "--json"])
    return exit_code, json.loads(capsys.readouterr().out)


def reported(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Return the exit code of a command and what it printed to standard error."""
    exit_code = run_command(list(map(str, arguments)))
    return exit_code, capsys.readouterr().err
