import io
from pathlib import Path

import pytest

from protos.messages import as_dict
from protos.unspool.v1.admin_pb2 import CheckpointInfo, Event, LaneStatus, Status, WorkerStatus
from service.display import tables
from service.display.output import Console
from service.display.progress import BarDisplay, LineDisplay, bars_on, display_on, duration, facts
from service.run.run_directory import RunDirectory
from tests.support.clock import Clock

RUNNING = Status(
    run="digits",
    state="RUNNING",
    outer_step=7,
    outer_steps=20,
    loss=1.25,
    updates_per_s=2.0,
    inner_steps_per_s=1500.0,
    workers_desired=3,
    workers=[WorkerStatus(name="w0", state="ACTIVE", lanes=[0, 2]), WorkerStatus(name="w1")],
    lanes=[LaneStatus(lane=2, worker="w0", seq=8, loss=0.5)],
    eta_s=62.0,
    checkpoint=CheckpointInfo(path="runs/digits/checkpoints/step-5", outer_step=5),
    endpoints={"http": "127.0.0.1:80"},
    problems=["disk: is full"],
)


class Broken(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError("gone")


def printed(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=1000)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_facts_of_a_running_run_are_told_in_one_line() -> None:
    told = ["loss 1.25", "2 updates/s", "1,500 inner steps/s", "2/3 workers", "0:01:02 left"]
    assert facts(RUNNING) == told


def test_a_run_that_stands_still_says_what_it_waits_for() -> None:
    waiting = Status(state="WAITING_FOR_WORKERS", waiting_for="a worker")
    assert facts(waiting) == ["waiting for workers", "0/0 workers", "waiting for a worker"]


def test_what_is_waited_for_is_cut_to_a_line() -> None:
    assert len(facts(Status(waiting_for="x" * 500))[-1]) < 100


def test_lines_are_printed_every_few_seconds_and_when_the_state_changes() -> None:
    clock, stream = Clock(), io.StringIO()
    display = LineDisplay(stream, clock)
    for now_s, state in ((0, "RUNNING"), (1, "RUNNING"), (2, "PAUSED"), (20, "PAUSED")):
        clock.now_s = now_s
        display.show(Status(state=state, outer_step=now_s, outer_steps=20))
    steps = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert steps == ["0/20", "2/20", "20/20"]


def test_a_pipe_gets_lines_and_no_control_characters() -> None:
    stream = io.StringIO()
    display = display_on(stream)
    display.note("[hello]")
    display.show(RUNNING)
    display.close()
    assert "[hello]\nstep 7/20  loss 1.25" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_a_bar_that_ends_with_the_run() -> None:
    stream = io.StringIO()
    display = BarDisplay(Console(file=stream, force_terminal=True, width=100))
    display.note("[hello]")
    display.show(RUNNING)
    display.close()
    assert "7/20" in stream.getvalue()
    assert "[hello]" in stream.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_closed_terminal_does_not_end_a_run(is_terminal: bool) -> None:
    stream = Broken()
    console = Console(file=stream, force_terminal=True)
    display = BarDisplay(console) if is_terminal else LineDisplay(stream, Clock())
    display.note("hello")
    display.show(RUNNING)
    display.close()


def test_a_duration_is_told_in_hours_minutes_and_seconds() -> None:
    assert duration(3723.4) == "1:02:03"


def test_a_status_report_has_everything_that_a_person_looks_for() -> None:
    report = printed(tables.status_report(RUNNING))
    for wanted in ("digits  RUNNING  step 7/20", "http://127.0.0.1:80/", "disk: is full", "w1", "step-5"):
        assert wanted in report


def test_an_event_is_told_in_one_line() -> None:
    event = Event(number=3, level="warning", kind="nonfinite", text="lane 2")
    assert "warning" in tables.event_line(event)
    assert tables.event_line(event).endswith("nonfinite: lane 2")


def test_a_summary_names_the_end_and_the_run() -> None:
    ended = Status(state="STOPPED", outer_step=3, outer_steps=9, elapsed_s=61, theta_sha256="ab" * 32)
    summary = tables.summary(ended, RunDirectory(Path("runs/digits")))
    assert summary == "stopped at step 3/9, after 0:01:01, theta abababababababab; run directory runs/digits"


def test_facts_are_plain_values_with_nulls_for_what_is_absent() -> None:
    plain = as_dict(Status(loss=float("nan"), workers=[WorkerStatus(name="w0", lanes=[1])]))
    assert plain["loss"] is None
    assert plain["grad_norm"] is None
    assert plain["checkpoint"] is None
    assert plain["staleness"] == {"mean": 0.0, "max": 0}
    assert (plain["workers"][0]["lanes"], plain["endpoints"]) == ([1], {})


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "are_wanted", "shown"),
    [(FakeTerminal(), True, True), (FakeTerminal(), False, False), (io.StringIO(), True, False)],
)
def test_bars_are_for_terminals(
    stream: io.StringIO, are_wanted: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with bars_on(stream, are_wanted=are_wanted) as show:
        show("meta-trained", 100, 0)
        show("meta-trained", 100, 70)
    assert ("70/100" in stream.getvalue()) is shown
