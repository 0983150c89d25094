import json
from collections.abc import Callable
from pathlib import Path

import pytest

from protos.exit_codes import LearnerUnreachableError, RunNotFoundError
from protos.rpc.roles import Role
from service.run.last_status import last_status
from service.run.run_directory import RunDirectory, claim_free_directory, find_run, known_runs


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.chdir(tmp_path)
    created = RunDirectory(tmp_path / "runs" / "quadratic-1")
    created.create("outer_steps = 10\n")
    return created


def test_the_files_of_an_older_program_are_read(run: RunDirectory) -> None:
    (run.path / "epoch").write_text("2\n")
    (run.path / "status.json").write_text('{"state": "STOPPED", "epoch": 2, "refusals": {"wrong_token": 1}}')
    about = {"run": "r", "pid": 1, "epoch": 2, "learner": "h:1", "admin": "h:2", "http": "h:3"}
    (run.path / "endpoints.json").write_text(json.dumps(about))
    status = last_status(run)
    assert (status.state, status.term, dict(status.access_denials)) == ("STOPPED", 2, {"wrong_token": 1})
    assert run.endpoints().term == 2


@pytest.mark.parametrize("role", Role)
def test_a_token_is_secret_and_stays_the_same(run: RunDirectory, role: Role) -> None:
    token = run.token(role)
    run.create("outer_steps = 11\n")
    assert run.token(role) == token
    assert len(token) >= 32
    assert run.token_path(role).stat().st_mode & 0o777 == 0o600


def test_each_role_has_a_token_of_its_own(run: RunDirectory) -> None:
    assert len({run.token(role) for role in Role}) == len(Role)
    assert run.token_path(Role.ADMIN).name == "token"


def test_a_run_of_an_earlier_version_gets_the_tokens_that_it_lacks(run: RunDirectory) -> None:
    before = run.token()
    run.token_path(Role.WORKER).unlink()
    run.create("outer_steps = 11\n")
    assert run.token() == before
    assert run.token(Role.WORKER) != before


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("\n")])
def test_a_token_that_cannot_be_read_is_named(run: RunDirectory, spoil: Callable[[Path], object]) -> None:
    spoil(run.token_path(Role.VIEWER))
    with pytest.raises(RunNotFoundError, match="token-viewer"):
        run.token(Role.VIEWER)


@pytest.mark.parametrize("name", ["quadratic-1", "runs/quadratic-1", None])
def test_a_run_is_found_by_directory_by_name_and_as_the_newest(run: RunDirectory, name: str | None) -> None:
    assert find_run(name).path.resolve() == run.path.resolve()


def test_a_run_that_is_not_there_is_named_with_the_nearest(run: RunDirectory) -> None:
    with pytest.raises(RunNotFoundError, match=r"did you mean quadratic-1\?"):
        find_run("quadratic-2")


def test_without_any_run_there_is_no_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunNotFoundError, match="there is no run"):
        find_run(None)


def test_each_new_run_gets_a_directory_of_its_own(run: RunDirectory) -> None:
    assert [claim_free_directory("quadratic").name for _ in range(2)] == ["quadratic-2", "quadratic-3"]
    assert [known.name for known in known_runs()] == ["quadratic-1"]


def test_endpoints_are_those_that_the_learner_wrote(run: RunDirectory) -> None:
    facts = {"run": "r", "pid": 1, "term": 1, "learner": "a:1", "admin": "a:2", "http": "a:3", "more": 0}
    (run.path / "endpoints.json").write_text(json.dumps(facts))
    assert (run.endpoints().admin, run.endpoints().pid) == ("a:2", 1)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{"])
def test_endpoints_that_are_none_are_refused(run: RunDirectory, text: str) -> None:
    (run.path / "endpoints.json").write_text(text)
    with pytest.raises(LearnerUnreachableError, match=r"endpoints\.json"):
        run.endpoints()
