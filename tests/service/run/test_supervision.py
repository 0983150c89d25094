"""What a supervisor leaves for `unspool status`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.run.run_directory import RunDirectory
from service.run.supervision import note_supervision, supervising, supervision_problems


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


@pytest.fixture
def supervised(run: RunDirectory) -> Iterator[RunDirectory]:
    with supervising(run):
        yield run


def test_a_run_without_a_supervisor_has_no_problem_with_it(run: RunDirectory) -> None:
    assert supervision_problems(run) == []


def test_problems_and_the_ends_of_workers_are_passed_on(supervised: RunDirectory) -> None:
    note_supervision(supervised, ["no room"], {"w0": (2, "crashed: killed by SIGSEGV")})
    assert supervision_problems(supervised) == [
        "supervisor: no room",
        "supervisor: worker w0 ended 2x, the last time crashed: killed by SIGSEGV",
    ]


def test_the_note_of_an_earlier_release_is_understood(supervised: RunDirectory) -> None:
    note_supervision(supervised, ["no room"])
    facts = json.loads(supervised.supervisor_path.read_text())
    del facts["workers"]
    supervised.supervisor_path.write_text(json.dumps(facts))
    assert supervision_problems(supervised) == ["supervisor: no room"]
