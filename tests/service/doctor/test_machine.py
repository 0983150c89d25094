"""The checks of a machine, and what they find on worse ones."""

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.display.tables import Finding
from service.doctor import machine

MIB = 2**20


def troubles(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(one.about, one.state) for one in findings if one.state != "ok"]


def test_a_port_that_is_taken_is_a_problem() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        finding = machine.port("port", "127.0.0.1", number)
    assert (finding.about, finding.state) == ("learner.port", "problem")
    assert "already in use" in finding.text


def test_an_address_of_another_machine_is_a_problem() -> None:
    assert machine.port("port", "192.0.2.77", 0).state == "problem"


@pytest.mark.parametrize(
    ("available", "expected"), [(2**40, "ok"), (900 * MIB, "warning"), (100 * MIB, "problem"), (None, "ok")]
)
def test_too_little_memory_is_a_warning_or_a_problem(
    monkeypatch: pytest.MonkeyPatch, available: int | None, expected: str
) -> None:
    monkeypatch.setattr(machine, "_memory_bytes", lambda: available)
    assert machine.memory(learner_bytes=500 * MIB, workers=4).state == expected


def test_more_threads_than_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cores", lambda: 4)
    assert machine.cores(workers=2, threads=2).state == "ok"
    assert machine.cores(workers=3, threads=2).state == "warning"


def test_a_disk_that_is_too_small_is_a_problem(tmp_path: Path) -> None:
    space, _ = machine.disk(tmp_path, needed_bytes=2**60)
    assert (space.about, space.state) == ("disk", "problem")


def test_a_slow_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_fsync_s", lambda folder: 0.5)
    assert troubles(list(machine.disk(tmp_path, 0))) == [("disk speed", "warning")]


def test_a_missing_folder_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert troubles(list(machine.disk(tmp_path / "runs" / "new", 0))) == []


def test_a_package_that_is_too_old_or_too_new_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_version", lambda name: {"ray": "2.9.1", "protobuf": "8.0"}.get(name, "9"))
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["ray>=2.55,<3", "protobuf<8,>=7.35"])
    assert troubles(list(machine.versions())) == [("ray", "problem"), ("protobuf", "problem")]


def test_a_jaxlib_of_another_release_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine, "_version", lambda name: {"jax": "0.10.2", "jaxlib": "0.9.0"}.get(name, "99")
    )
    monkeypatch.setattr("importlib.metadata.requires", lambda name: [])
    assert troubles(list(machine.versions())) == [("jaxlib", "problem")]


def test_a_package_that_is_missing_is_a_problem_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_version", lambda name: {"optax": ""}.get(name, "9"))
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["optax>=0.2.8", "scikit-learn>=1.7"])
    (optax,) = [one for one in machine.versions() if one.about == "optax"]
    assert (optax.state, optax.text) == ("problem", "is not installed")
    assert optax.remedy == "pip install 'optax>=0.2.8'"


@pytest.mark.parametrize(
    ("version", "state"), [("3.10.9", "problem"), ("3.11.0", "ok"), ("3.14.1", "problem")]
)
def test_only_some_versions_of_python_will_do(
    monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    monkeypatch.setattr("platform.python_version", lambda: version)
    monkeypatch.setattr("platform.python_version_tuple", lambda: tuple(version.split(".")))
    assert next(iter(machine.versions())).state == state


def test_a_free_port_is_fine_and_zero_stands_for_any() -> None:
    assert machine.port("port", "127.0.0.1", 0).text == "any free one of 127.0.0.1"


def test_a_folder_that_cannot_be_written_to_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(folder: Path) -> float:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine, "_fsync_s", denied)
    _, speed = machine.disk(tmp_path, 0)
    assert (speed.about, speed.state) == ("disk speed", "problem")
    assert "cannot be written to (Permission denied)" in speed.text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (MIB, "1.0 MiB"), (2**31, "2.0 GiB")],
)
def test_sizes_have_the_largest_fitting_unit(count: int, text: str) -> None:
    assert machine.size(count) == text
