"""What lies in the current directory hides no other module, and a run's own modules there are found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.experiments import TINY, toml_of
from tests.support.patience import PATIENCE_S
from workers.pools.local_process import PROGRAM

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

CONFIG = toml_of(TINY, "outer_steps=2", "estimators.0.task_family={type='my_tasks:MyFamily'}")
MY_TASKS = """
from my_helpers import DIM
from unspool.tasks.quadratics import FixedDimQuadraticFamily

class MyFamily(FixedDimQuadraticFamily):
    def __init__(self):
        super().__init__(DIM)
"""
SCRIPT = (str(Path(sys.executable).with_name("unspool")),)
OTHERS = (
    "unspool",
    "protos",
    "learner",
    "workers",
    "service",
    "jax",
    "numpy",
    "ray",
    "grpc",
    "optax",
    "tyro",
)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory with a user's modules and, for every other name, one that ends Python as a success."""
    for name in [*sys.stdlib_module_names, *OTHERS]:
        (tmp_path / f"{name}.py").write_text("raise SystemExit(0)\n")
    for name in OTHERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "my_tasks.py").write_text(MY_TASKS)
    (tmp_path / "my_helpers.py").write_text("DIM = 3\n")
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def run(
    directory: Path, *command: str, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=directory,
        env=os.environ | (variables or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("program", [SCRIPT, PROGRAM], ids=["script", "own processes"])
def test_no_module_name_in_the_current_directory_disturbs_a_command(
    hostile: Path, program: tuple[str, ...]
) -> None:
    done = run(hostile, *program, "check", "config.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outer_steps"] == 2


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_run_is_trained_among_modules_of_every_name(hostile: Path, backend: str) -> None:
    done = run(hostile, *SCRIPT, "launch", "config.toml", "--backend", backend, "--run-dir", "r", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(done.stdout)
    assert (status["state"], status["outer_step"]) == ("FINISHED", 2)
    assert run(hostile, *SCRIPT, "export", "r", "--out", "theta.npz").returncode == 0
    assert (hostile / "theta.npz").exists()


@pytest.mark.parametrize("name", ["workers", "service", "logging", "inspect", "optax", "json"])
def test_python_m_service_survives_what_python_itself_survives(tmp_path: Path, name: str) -> None:
    if name != "service":
        (tmp_path / f"{name}.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "my_tasks.py").write_text(MY_TASKS)
    (tmp_path / "my_helpers.py").write_text("DIM = 3\n")
    (tmp_path / "config.toml").write_text(CONFIG)
    done = run(tmp_path, sys.executable, "-m", "service", "check", "config.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outer_steps"] == 2


def test_a_checkout_that_is_the_current_directory_runs_its_own_code() -> None:
    root = Path(__file__).parents[2]
    done = run(root, sys.executable, "-S", "-c", SHOWS_PATH)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(root)] * 2


SHOWS_PATH = """
import sys
sys.path.insert(0, "")
from service.__main__ import put_current_directory_last
put_current_directory_last()
import os, workers
print(sys.path[-1], os.path.dirname(os.path.dirname(workers.__file__)))
"""


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("workers", "this program's package"),
        ("logging", "the standard library's"),
        ("optax", "an installed package"),
    ],
)
def test_a_users_module_of_a_name_that_is_taken_is_refused_with_the_remedy(
    tmp_path: Path, name: str, owner: str
) -> None:
    (tmp_path / f"{name}.py").write_text("class MyFamily: pass\n")
    (tmp_path / "config.toml").write_text(CONFIG.replace("my_tasks", name))
    done = run(tmp_path, *SCRIPT, "check", "config.toml")
    assert done.returncode == 2
    for words in (f"{tmp_path / name}.py is hidden by", owner, "rename yours"):
        assert words in done.stderr
