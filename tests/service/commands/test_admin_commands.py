"""Commands of an admin: the requests that the learner receives, and what is printed."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1.admin_pb2 import (
    EvictRequest,
    LaneStatus,
    ResetLaneRequest,
    ScaleRequest,
    WorkersRange,
    WorkerStatus,
)
from service.commands.command import run_command
from tests.service.fakes import FakeAdmin


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> FakeAdmin:
    admin = FakeAdmin(workers_desired=2)
    admin.joined = {"w0"}

    @contextlib.contextmanager
    def connected(run: object) -> Iterator[FakeAdmin]:
        yield admin

    monkeypatch.setattr("service.commands.admin_commands.connected", connected)
    monkeypatch.setattr("service.commands.admin_commands.find_run", lambda run: run)
    return admin


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run_command([*arguments, "--json"]) == ExitCode.OK
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_command(arguments) == ExitCode.USAGE
    return capsys.readouterr().err


def test_a_number_of_workers_is_set(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(capsys, "scale", "run", "3")["workers_before"] == 2
    assert admin.asked(ScaleRequest) == [ScaleRequest(workers=3)]


def test_a_range_of_workers_is_set(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    facts = answered(capsys, "scale", "run", "1:8")
    assert admin.asked(ScaleRequest) == [ScaleRequest(range=WorkersRange(min=1, max=8))]
    assert (facts["workers_min"], facts["workers_max"]) == (1, 8)


def test_a_range_of_one_number_is_that_number(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(capsys, "scale", "run", "4:4")["workers"] == 4
    assert admin.asked(ScaleRequest) == [ScaleRequest(workers=4)]


def test_workers_beyond_the_lanes_are_said_to_idle(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.answer.lanes.extend(LaneStatus(lane=lane) for lane in range(3))
    assert run_command(["scale", "run", "5"]) == ExitCode.OK
    assert capsys.readouterr().out == (
        "workers: 2 -> 5; 2 of 5 workers will be idle: there are only 3 lanes (aggregation.lanes)\n"
    )
    assert run_command(["scale", "run", "3"]) == ExitCode.OK
    assert capsys.readouterr().out == "workers: 5 -> 3\n"
    assert answered(capsys, "scale", "run", "4")["lanes"] == 3


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ("many", "must be a number of workers, or MIN:MAX"),
        ("1:2:3", "must be a number of workers, or MIN:MAX"),
        (":3", "must be a number of workers, or MIN:MAX"),
        ("3:", "must be a number of workers, or MIN:MAX"),
        ("4:2", "MIN must not exceed MAX"),
    ],
)
def test_an_impossible_number_of_workers_is_refused(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], said: str, rule: str
) -> None:
    assert f"= {said}: {rule}" in refused(capsys, "scale", "run", said)


def test_a_worker_is_drained(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(capsys, "drain", "run", "w0") == {"worker": "w0"}
    assert admin.drained == ["w0"]


def test_a_worker_is_evicted(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(capsys, "evict", "run", "w0") == {"worker": "w0"}
    assert admin.requests == [EvictRequest(worker_name="w0", reason="evicted by an admin")]


def test_a_workers_stack_is_shown(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert answered(capsys, "stack", "run", "w0")["stack"] == "the stack of w0"


@pytest.mark.parametrize("command", ["drain", "evict", "stack"])
def test_a_worker_that_is_not_there_is_named(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert "no worker w9" in refused(capsys, command, "run", "w9")


@pytest.mark.parametrize(("flags", "fresh"), [((), False), (("--fresh",), True)])
def test_a_lane_is_reset(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], fresh: bool
) -> None:
    assert answered(capsys, "reset-lane", "run", "3", *flags) == {"lane": 3, "fresh": fresh}
    assert admin.requests == [ResetLaneRequest(lane=3, fresh=fresh)]


def test_a_lane_below_the_first_is_refused(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert "LANE = -1: must not be negative" in refused(capsys, "reset-lane", "run", "-1")


def test_workers_are_listed_with_what_came_too_late_of_them(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.answer.workers.append(WorkerStatus(name="w0", stale_in_a_row=17))
    assert run_command(["workers", "run"]) == ExitCode.OK
    assert "17" in capsys.readouterr().out


def test_lanes_are_listed_with_the_last_line_of_what_ended_them(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.answer.lanes.append(
        LaneStatus(lane=0, state="QUARANTINED", problem="Traceback:\n  line 3\nZeroDivisionError: x\n")
    )
    assert run_command(["lanes", "run"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "quarantined" in shown
    assert "ZeroDivisionError: x" in shown
    assert "line 3" not in shown
