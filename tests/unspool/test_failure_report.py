"""What is said of an exception: its type, its message, and the user's own innermost line."""

import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import pytest

from unspool.failure_report import MESSAGE_CHARACTERS, FailureReport, traceback_of

_MY_TASK = """\
import jax, jax.numpy as jnp

def plain():
    raise RuntimeError("the licence has expired")

def wrapped():
    try:
        plain()
    except RuntimeError as error:
        raise OSError("cannot start") from error

def behind_a_callback(x):
    def simulate(value):
        plain()
    return jax.pure_callback(simulate, jax.ShapeDtypeStruct((), jnp.float32), x, vmap_method="sequential")

def traced(x):
    return x if x > 0 else -x

def through_the_standard_library():
    import json
    json.loads("{")

def batches():
    yield 1
    raise LookupError("no more files")

class SilentError(Exception):
    def __str__(self):
        raise ValueError("even this fails")

def silent():
    raise SilentError
"""

Module = Callable[[str], ModuleType]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Import a user's module of this text, from a file `my_task<number>.py`."""
    monkeypatch.syspath_prepend(tmp_path)
    numbers = itertools.count()

    def imported(text: str) -> ModuleType:
        name = f"my_task{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        finally:
            sys.modules.pop(name, None)

    return imported


def report_of(call: Callable[[], object]) -> FailureReport:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (of any kind)
        jax.block_until_ready(call())
    return FailureReport.of(caught.value)


def test_an_exception_is_reported_with_the_line_that_raised_it(module: Module) -> None:
    report = report_of(module(_MY_TASK).plain)
    assert str(report) == "RuntimeError: the licence has expired (my_task0.py:4 in plain)"
    assert report.is_users


def test_the_last_of_the_users_chained_exceptions_is_reported(module: Module) -> None:
    assert str(report_of(module(_MY_TASK).wrapped)) == "OSError: cannot start (my_task0.py:10 in wrapped)"


def test_the_exception_of_a_callback_is_reported_and_not_its_wrapper(module: Module) -> None:
    task = module(_MY_TASK)
    report = report_of(lambda: jax.jit(jax.vmap(task.behind_a_callback))(jnp.ones(2)))
    assert str(report) == "RuntimeError: the licence has expired (my_task0.py:4 in plain)"


def test_frames_of_jax_are_passed_over(module: Module) -> None:
    task = module(_MY_TASK)
    report = report_of(lambda: jax.jit(task.traced)(1.0))
    assert (report.type, str(report.frame)) == ("TracerBoolConversionError", "my_task0.py:18 in traced")


def test_frames_of_the_standard_library_are_passed_over(module: Module) -> None:
    report = report_of(module(_MY_TASK).through_the_standard_library)
    assert report.type == "JSONDecodeError"
    assert str(report.frame) == "my_task0.py:22 in through_the_standard_library"


def test_an_iterator_is_blamed_for_what_it_raises(module: Module) -> None:
    task = module(_MY_TASK)
    assert (
        str(report_of(lambda: list(task.batches())))
        == "LookupError: no more files (my_task0.py:26 in batches)"
    )


def test_a_message_that_cannot_be_shown_does_not_hide_the_exception(module: Module) -> None:
    report = report_of(module(_MY_TASK).silent)
    assert (report.type, str(report.frame)) == ("SilentError", "my_task0.py:33 in silent")


def test_a_file_with_a_syntax_error_is_named(module: Module) -> None:
    report = report_of(lambda: module("a = 1\nb = = 2\n"))
    assert str(report) == "SyntaxError: invalid syntax (my_task0.py:2)"


def test_an_import_that_fails_is_blamed_on_the_module_that_imports(module: Module) -> None:
    report = report_of(lambda: module("\nimport no_such_module_at_all\n"))
    assert str(report) == "ModuleNotFoundError: No module named 'no_such_module_at_all' (my_task0.py:2)"


def test_an_exception_of_user_code_is_reported_when_the_library_wraps_it(module: Module) -> None:
    from unspool.config.components import build
    from unspool.config.config_error import ConfigError

    module("")  # makes the folder importable
    path = Path(sys.path[0]) / "my_broken.py"
    path.write_text("class Broken:\n    def __init__(self):\n        raise ValueError('no such machine')\n")
    with pytest.raises(ConfigError) as caught:
        build({"type": "my_broken:Broken"}, "task", object)
    assert str(FailureReport.of(caught.value)) == "ValueError: no such machine (my_broken.py:3 in __init__)"


def test_a_group_is_reported_by_its_members(module: Module) -> None:
    task = module(_MY_TASK)
    try:
        task.plain()
    except RuntimeError as error:
        group = ExceptionGroup("several", [error])
    assert str(FailureReport.of(group)) == "RuntimeError: the licence has expired (my_task0.py:4 in plain)"


def test_an_exception_without_a_traceback_has_no_line() -> None:
    assert str(FailureReport.of(KeyError("x"))) == "KeyError: 'x'"
    assert str(FailureReport.of(AssertionError())) == "AssertionError"


def test_a_long_message_is_cut_to_one_line() -> None:
    report = FailureReport.of(ValueError("\n" + "x" * 1000 + "\nmore"))
    assert len(report.message) == MESSAGE_CHARACTERS
    assert "more" not in report.message


def test_a_traceback_ends_with_the_report_whatever_notes_there_are(module: Module) -> None:
    task = module(_MY_TASK)
    with pytest.raises(OSError, match="cannot start") as caught:
        task.wrapped()
    caught.value.add_note("a note of somebody's")
    text = traceback_of(caught.value)
    assert "the licence has expired" in text
    assert text.splitlines()[-1] == "OSError: cannot start (my_task0.py:10 in wrapped)"
