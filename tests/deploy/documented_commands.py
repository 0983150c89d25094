"""The `unspool` commands in the files of deploy/."""

import re
import shlex
from collections.abc import Iterator

from tests.deploy.deploy_files import DEPLOY, yaml_objects

_OPERATORS = {"|", "||", "&", "&&", ";"}


def documented_commands() -> list[list[str]]:
    """Return the arguments of each command, with shell variables unexpanded."""
    readme = re.findall(r"^```sh\n(.*?)^```", (DEPLOY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    script = re.sub(r"^\s*#.*$", "", (DEPLOY / "slurm/unspool.sbatch").read_text(), flags=re.MULTILINE)
    entrypoint = yaml_objects(DEPLOY / "kuberay/rayjob.yaml")[0]["spec"]["entrypoint"]
    return [command for text in (*readme, script, entrypoint) for command in _commands(text)]


def _commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if "unspool " in line or "python -m service" in line:
            yield from _commands_of_line(shlex.split(line, comments=True))


def _commands_of_line(words: list[str]) -> Iterator[list[str]]:
    for place, word in enumerate(words):
        if word == "unspool" and _begins_a_command(words[:place]):
            yield _until_operator(words[place + 1 :])
        elif words[place : place + 3] == ["python", "-m", "service"]:
            yield _until_operator(words[place + 3 :])
        elif " " in word:  # a command line for another shell
            yield from _commands(word)


def _begins_a_command(before: list[str]) -> bool:
    """Return whether the next word is a call of the program, not a namespace of the same name."""
    return not before or before[-1] in {"--", "exec", *_OPERATORS} or "=" in before[-1]


def _until_operator(words: list[str]) -> list[str]:
    end = next((place for place, word in enumerate(words) if word in _OPERATORS), len(words))
    return words[:end]
