"""Waiting for the processes of a launch, and what its supervision shows."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from protos.exit_codes import CheckpointError, FailedError, InterruptedRunError, UsageError
from protos.unspool.v1.admin_pb2 import Status
from service.display.tables import Finding
from service.run.run_directory import RunDirectory
from service.supervise import launch
from service.supervise.launch import Backend
from tests.service.fakes import FakeAdmin, FakeLearner
from tests.support.clock import Clock

TOO_LONG = Finding("temporary folder", "problem", "too long", "shorten it")


class Signals:
    count = 0


class Notes:
    """A display that records."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.states: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def show(self, status: Status) -> None:
        self.states.append(status.state)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the waits, which sleeping advances."""
    clock = Clock()
    monkeypatch.setattr(launch.time, "monotonic", clock)
    monkeypatch.setattr(launch.time, "sleep", clock.advance)
    return clock


def listen(run: RunDirectory, pid: int) -> None:
    names = ("learner", "admin", "http")
    endpoints = {"run": run.name, "pid": pid, "term": 1, **dict.fromkeys(names, "127.0.0.1:9")}
    (run.path / "endpoints.json").write_text(json.dumps(endpoints))


def awaited(run: RunDirectory, learner: FakeLearner, signals: Any = Signals) -> Any:
    return launch.await_learner(run, learner, signals)


@pytest.mark.usefixtures("clock")
def test_a_learner_has_started_when_the_endpoints_are_those_of_its_process(run: RunDirectory) -> None:
    listen(run, pid=7)
    endpoints = awaited(run, FakeLearner(pid=7))
    assert (endpoints.pid, endpoints.page) == (7, "http://127.0.0.1:9/")


def test_endpoints_of_an_earlier_process_are_not_taken(run: RunDirectory, clock: Clock) -> None:
    listen(run, pid=6)
    with pytest.raises(FailedError, match="does not listen after 180 s: the last line of its log"):
        awaited(run, FakeLearner(pid=7))
    assert clock() > 180


@pytest.mark.usefixtures("clock")
def test_a_learner_without_work_has_no_endpoints(run: RunDirectory) -> None:
    listen(run, pid=1)
    learner = FakeLearner()
    learner.exit_code = 0
    assert awaited(run, learner) is None


@pytest.mark.usefixtures("clock")
def test_the_error_of_a_learner_that_cannot_start_is_its_own(run: RunDirectory) -> None:
    learner = FakeLearner()
    learner.exit_code = 74
    with pytest.raises(CheckpointError, match="the last line of its log"):
        awaited(run, learner)


@pytest.mark.usefixtures("clock")
def test_a_signal_ends_the_wait_for_the_learner(run: RunDirectory) -> None:
    stopped = Signals()
    stopped.count = 1
    with pytest.raises(InterruptedRunError, match="before the learner had started"):
        awaited(run, FakeLearner(), stopped)


@pytest.fixture
def detach(monkeypatch: pytest.MonkeyPatch, clock: Clock, run: RunDirectory) -> Callable[..., Status]:
    """Detach a run whose learner knows these workers; the supervisor may have ended."""

    def detach(*workers: str, exit_code: int | None = None) -> Status:
        admin, supervisor = FakeAdmin(workers_desired=1), FakeLearner()
        admin.sees(*workers)
        supervisor.exit_code = exit_code
        monkeypatch.setattr(launch, "ChildProcess", lambda *arguments: supervisor)
        monkeypatch.setattr(launch, "connected", lambda run: contextlib.nullcontext(admin))
        return launch.detach(run, Backend("local"))

    return detach


def test_a_detached_launch_returns_the_status_with_a_worker(detach: Callable[..., Status]) -> None:
    assert [worker.name for worker in detach("w0").workers] == ["w0"]


def test_a_detached_launch_without_a_worker_gives_up_but_leaves_the_supervisor(
    detach: Callable[..., Status],
) -> None:
    with pytest.raises(InterruptedRunError, match="no worker has joined within 180 s; it is still trying"):
        detach()


def test_a_detached_launch_of_a_complete_run_returns_the_status_in_its_directory(
    detach: Callable[..., Status],
) -> None:
    assert detach(exit_code=0).state == "DOWN"


def test_a_detached_launch_that_fails_raises_the_supervisors_error(detach: Callable[..., Status]) -> None:
    with pytest.raises(CheckpointError):
        detach(exit_code=74)


def test_a_folder_that_is_too_long_for_ray_is_rejected_only_where_ray_would_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "temporary_folder", lambda: TOO_LONG)
    Backend("local").check()
    Backend("ray", "10.0.0.1:6379").check()
    with pytest.raises(UsageError, match="too long; shorten it"):
        Backend("ray").check()


class Supervised:
    """A supervisor of a run that ends at its third step."""

    def __init__(self) -> None:
        self.status = Status(state="RUNNING")
        self.problems = ["no room"]
        self.ends = {"w0": (1, "crashed: ValueError")}
        self.stops: list[int] = []

    def ask_to_stop(self, times: int) -> None:
        self.stops.append(times)

    def step(self) -> bool:
        return len(self.stops) == 3


@pytest.mark.usefixtures("clock")
def test_problems_and_ends_are_shown_once_and_stored_for_the_status(run: RunDirectory) -> None:
    display, supervisor = Notes(), Supervised()
    launch.follow_run(run, supervisor, Signals, display)
    assert display.texts == ["no room", "worker w0 ended: crashed: ValueError"]
    assert display.states == 3 * ["RUNNING"]
    stored = json.loads(run.supervisor_path.read_text())
    assert (stored["problems"], stored["workers"]["w0"]["ended"]) == (["no room"], 1)


@pytest.mark.usefixtures("clock")
def test_each_signal_is_forwarded_and_explained(run: RunDirectory) -> None:
    display, supervisor, stopped = Notes(), Supervised(), Signals()
    stopped.count = 2
    launch.follow_run(run, supervisor, stopped, display)
    assert supervisor.stops == [2, 2, 2]
    assert [text.partition(",")[0] for text in display.texts[:2]] == [
        "stopping after the running outer step",
        "stopping at once",
    ]
