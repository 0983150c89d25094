"""What the command line shows of a run to people."""

from pathlib import Path

from rich.console import Console

from protos.unspool.v1.admin_pb2 import LaneStatus, Status, WorkerStatus
from service.display import tables
from service.run.run_directory import RunDirectory


def shown(status: Status) -> str:
    console = Console(width=400)
    with console.capture() as captured:
        console.print(tables.status_report(status))
    return captured.get()


def test_a_range_of_workers_is_shown_and_a_fixed_number_is_not() -> None:
    assert "workers: 3 of 1 to 8" in shown(Status(workers_desired=3, workers_min=1, workers_max=8))
    assert "3 to 3" not in shown(Status(workers_desired=3, workers_min=3, workers_max=3))


def test_machines_that_are_avoided_are_named() -> None:
    assert "no workers on: bad-1, bad-2" in shown(Status(excluded_hosts=["bad-1", "bad-2"]))


def test_problems_are_shown() -> None:
    assert "the disk is full" in shown(Status(problems=["the disk is full"]))


def test_a_relay_is_shown_with_how_many_it_speaks_for() -> None:
    status = Status(workers=[WorkerStatus(name="r0", workers=4), WorkerStatus(name="w0", workers=1)])
    assert "r0 (relay of 4)" in shown(status)
    assert "w0 (" not in shown(status)


def test_a_detached_run_is_told_with_its_page_and_the_next_commands(tmp_path: Path) -> None:
    status = Status(endpoints={"http": "127.0.0.1:4711"}, workers_desired=3, lanes=[LaneStatus(lane=0)])
    told = tables.next_commands(status, RunDirectory(tmp_path / "my run"))
    name = f"'{tmp_path}/my run'"
    assert told.splitlines() == [
        "",
        "  status page: http://127.0.0.1:4711/",
        f"  unspool status {name} --watch",
        f"  unspool events {name} --follow",
        f"  unspool stop {name}",
        "2 of 3 workers will be idle: there are only 1 lanes (aggregation.lanes)",
    ]
