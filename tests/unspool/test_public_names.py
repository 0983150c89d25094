"""What `import unspool` offers, and what it costs."""

import subprocess
import sys

import pytest

import unspool
from unspool.tasks.base import Task


def test_every_public_name_resolves_to_its_definition() -> None:
    assert unspool.Task is Task
    assert all(getattr(unspool, name).__name__ == name for name in unspool.__all__)
    assert set(unspool.__all__) <= set(dir(unspool))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'unspool' has no attribute 'Taks'"):
        unspool.Taks  # noqa: B018


def test_importing_the_package_imports_no_jax() -> None:
    program = "import sys, unspool; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
