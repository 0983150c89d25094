"""What `import unspool` offers, and what it costs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import unspool
from unspool.config.component_names import NAMES, PUBLIC_NAMES
from unspool.tasks.base import Task


def test_every_public_name_resolves_to_its_definition() -> None:
    assert unspool.Task is Task
    for name, place in PUBLIC_NAMES.items():
        module, _, attribute = place.partition(":")
        assert getattr(unspool, name) is vars(importlib.import_module(module))[attribute]
    assert set(unspool.__all__) <= set(dir(unspool))


def test_every_component_of_a_configuration_is_there_by_the_same_name() -> None:
    assert set(NAMES) <= set(unspool.__all__)
    assert unspool.TruncatedPES.__module__ == "unspool.outer_trainers.truncated_pes"


def test_type_checkers_find_the_same_names_in_the_same_places() -> None:
    stub = ast.parse(Path(unspool.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    places = {alias.asname: f"{node.module}:{alias.name}" for node in imports for alias in node.names}
    assert places == dict(PUBLIC_NAMES)


@pytest.mark.parametrize(
    ("name", "remedy"), [("Taks", "did you mean Task?"), ("TruncatedPSE", "did you mean TruncatedPES?")]
)
def test_an_unknown_name_is_an_attribute_error_that_names_the_nearest(name: str, remedy: str) -> None:
    with pytest.raises(AttributeError, match=f"module 'unspool' has no attribute '{name}'") as error:
        getattr(unspool, name)
    assert remedy in str(error.value)


def test_importing_the_package_imports_no_jax() -> None:
    program = "import sys, unspool; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
