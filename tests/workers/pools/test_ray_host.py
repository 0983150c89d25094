"""The class that Ray runs in an actor, constructed here in a fresh interpreter as Ray would in its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from workers.pools.ray_host import driver_search

ROOT = Path(__file__).resolve().parents[3]
HOSTS = """
import sys
sys.path.insert(0, {root!r})
from workers.pools.ray_host import host_class
host = host_class()
{shadow}
actor = host(({users!r}, False), ("tests.workers.pools.hosted", "Hosted"), "w0")
print(actor.run(), actor.outcome(1.0), actor.location(), actor.stack())
print(sys.path[-1])
"""


def test_an_actor_forwards_every_call_to_the_object_that_it_hosts(tmp_path: Path) -> None:
    program = HOSTS.format(root=str(ROOT), users=str(tmp_path), shadow="")
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == ["w0 runs ('w0', 1.0) here stack of w0", str(tmp_path)]


def test_a_users_package_of_the_same_name_does_not_hide_this_programs(tmp_path: Path) -> None:
    (tmp_path / "unspool.py").write_text("raise SystemExit('the wrong module')")
    shadow = f"sys.path.insert(0, {str(tmp_path)!r})"
    program = HOSTS.format(root=str(ROOT), users=str(tmp_path), shadow=shadow)
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_driver_reports_its_directory_and_whether_its_code_comes_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert driver_search() == (str(tmp_path), False)
    monkeypatch.chdir(ROOT)
    assert driver_search() == (str(ROOT), True)
