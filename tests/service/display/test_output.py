import io
import json
import os

import pytest
from rich.text import Text

from protos.exit_codes import CheckpointError, ExitCode
from service.display.output import Console, answer, answer_again, report_error, report_notes
from unspool.config.config_error import ConfigError, Problem

PROBLEMS = ConfigError(Problem("seed", "-1", "must not be negative"), Problem("lanes", None, "is missing"))


def test_an_answer_is_json_for_programs_and_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    answer({"workers": 3}, True, "three workers")
    assert json.loads(capsys.readouterr().out) == {"workers": 3}
    answer({"workers": 3}, False, "three workers")
    assert capsys.readouterr().out == "three workers\n"


def test_text_is_neither_wrapped_nor_marked_up_where_no_terminal_limits_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "[red]" + 50 * "a long line " + "[/red]"
    answer({}, False, line)
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(("as_json", "lines"), [(True, ["1", "2"]), (False, ["one", "two"])])
def test_repeated_answers_are_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], as_json: bool, lines: list[str]
) -> None:
    answer_again([(1, Text("one")), (2, Text("two"))], as_json)
    assert capsys.readouterr().out.splitlines() == lines


def test_notes_do_not_mix_with_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    report_notes(["JAX_ENABLE_X64=1 is ignored"])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "unspool: JAX_ENABLE_X64=1 is ignored\n")


def test_an_error_is_one_line_with_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error(CheckpointError("no checkpoint"), as_json=False) == ExitCode.CHECKPOINT
    assert capsys.readouterr().err == "unspool: no checkpoint\n"


def test_an_error_is_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(CheckpointError("no checkpoint"), as_json=True)
    expected = {"error": "no checkpoint", "exit_code": ExitCode.CHECKPOINT, "problems": []}
    assert json.loads(capsys.readouterr().out) == expected


def test_problems_of_a_configuration_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_error(PROBLEMS, as_json=False) == ExitCode.USAGE
    first, *problems = capsys.readouterr().err.splitlines()
    assert first == "unspool: 2 problems in the configuration"
    assert [problem.split()[0] for problem in problems] == ["seed", "lanes:"]


def test_problems_of_a_configuration_are_objects_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(PROBLEMS, as_json=True)
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(problem["key"], problem["given"]) for problem in problems] == [("seed", "-1"), ("lanes", None)]


def test_an_error_that_cannot_be_printed_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Closed())
    assert report_error(CheckpointError("no checkpoint"), as_json=False) == ExitCode.CHECKPOINT


def test_a_closed_pipe_is_an_error_and_not_the_end_of_the_process() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError), os.fdopen(writing, "w", buffering=1) as stream:
        Console(file=stream).print("text")
