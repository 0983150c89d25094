"""What a supervisor leaves for `unspool status`."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.exit_codes import RunInUseError
from service.run.run_directory import RunDirectory
from service.run.supervision import check_unsupervised, note_supervision, supervising, supervision_problems


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


def test_problems_of_a_running_supervisor_are_shown(run: RunDirectory) -> None:
    with supervising(run):
        note_supervision(run, ["w0 only crashes"])
        assert supervision_problems(run) == ["supervisor: w0 only crashes"]


def test_a_supervisor_whose_process_has_ended_is_a_problem(run: RunDirectory) -> None:
    note_supervision(run, [])
    (problem,) = supervision_problems(run)
    assert f"process {os.getpid()} on {socket.gethostname()} is gone" in problem
    assert f"launch {run.path} again to supervise it" in problem


def test_a_run_without_a_supervisor_has_no_problem(run: RunDirectory) -> None:
    with supervising(run):
        note_supervision(run, ["w0 only crashes"])
    assert supervision_problems(run) == []


def test_a_run_has_one_supervisor(run: RunDirectory) -> None:
    holder = f"pid {os.getpid()} on {socket.gethostname()}"
    with supervising(run):
        for refused in (supervising(run).__enter__, lambda: check_unsupervised(run)):
            with pytest.raises(RunInUseError, match=holder):
                refused()
    check_unsupervised(run)


def test_a_supervisor_that_hangs_is_not_waited_for_once_its_learner_is_taken_over(run: RunDirectory) -> None:
    with supervising(run), supervising(run, handover_s=0.01), pytest.raises(RunInUseError):
        check_unsupervised(run)
