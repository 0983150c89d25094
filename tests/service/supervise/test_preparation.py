import fcntl
import json
from pathlib import Path

import pytest

from protos.exit_codes import FailedError, RunInUseError, UsageError
from service.config.run_config import RunConfig
from service.config.toml_document import read_tables, write_tables
from service.run.run_directory import RunDirectory
from service.supervise import preparation
from unspool.config.config_error import ConfigError

QUADRATIC = Path(__file__).parents[3] / "examples" / "quadratic_local.toml"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the check in another process, which has tests of its own."""
    monkeypatch.setattr(preparation, "check_in_child", lambda tables: None)


def prepared(
    *overrides: str, config: Path = QUADRATIC, run_dir: Path | None = None, accept: bool = False
) -> RunDirectory:
    return preparation.prepare(config, overrides, run_dir, accept)


@pytest.mark.usefixtures("unchecked")
def test_a_new_run_is_named_after_its_configuration() -> None:
    assert [prepared().path, prepared().path] == [
        Path("runs/quadratic_local-1"),
        Path("runs/quadratic_local-2"),
    ]


@pytest.mark.usefixtures("unchecked")
def test_the_run_directory_has_the_whole_configuration_overrides_included() -> None:
    run = prepared("workers.count=7", run_dir=Path("mine"))
    config = RunConfig.from_tables(read_tables(run.config_path))
    assert (run.path, config.workers.count, config.workers.cpu_threads) == (Path("mine"), 7, 1)


@pytest.mark.usefixtures("unchecked")
def test_a_run_directory_can_be_launched_again_by_itself() -> None:
    first = prepared("workers.count=7", run_dir=Path("mine"))
    again = prepared(config=first.path)
    assert again == first
    assert RunConfig.from_tables(read_tables(again.config_path)).workers.count == 7


@pytest.mark.usefixtures("unchecked")
def test_control_keys_may_change_between_launches() -> None:
    prepared(run_dir=Path("mine"))
    run = prepared("workers.count=5", "checkpoint.every=3", run_dir=Path("mine"))
    assert RunConfig.from_tables(read_tables(run.config_path)).checkpoint.every == 3


@pytest.mark.usefixtures("unchecked")
def test_training_keys_may_not_and_are_named() -> None:
    prepared(run_dir=Path("mine"))
    with pytest.raises(UsageError, match=r"seed, estimators\[0\]\.std changed"):
        prepared("seed=5", "estimators.0.std=0.5", run_dir=Path("mine"))


@pytest.mark.usefixtures("unchecked")
def test_a_run_is_not_resumed_with_other_numerics_but_with_other_diagnostics() -> None:
    prepared(run_dir=Path("mine"))
    with pytest.raises(UsageError, match=r"numerics\.prng_impl changed"):
        prepared("numerics.prng_impl=rbg", run_dir=Path("mine"))
    run = prepared("numerics.debug_nans=true", run_dir=Path("mine"))
    assert RunConfig.from_tables(read_tables(run.config_path)).numerics.debug_nans


@pytest.mark.usefixtures("unchecked")
def test_a_run_from_before_there_were_numerics_is_resumed_and_records_them() -> None:
    run = prepared(run_dir=Path("mine"))
    tables = read_tables(run.config_path)
    del tables["numerics"]
    run.config_path.write_text(write_tables(tables))
    prepared("outer_steps=77", run_dir=Path("mine"))
    assert read_tables(run.config_path)["numerics"]["threefry_partitionable"] is True


@pytest.mark.usefixtures("unchecked")
def test_training_keys_may_change_if_that_is_accepted() -> None:
    before = RunConfig.from_tables(read_tables(prepared(run_dir=Path("mine")).config_path))
    run = prepared("seed=5", run_dir=Path("mine"), accept=True)
    assert read_tables(run.config_path)["seed"] == 5
    assert run.accepted_sha256() == before.training_sha256()


@pytest.mark.usefixtures("unchecked")
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="is not a run"):
        prepared(run_dir=Path("mine"))


@pytest.mark.usefixtures("unchecked")
def test_a_run_that_is_going_on_is_left_alone() -> None:
    run = prepared(run_dir=Path("mine"))
    with (run.path / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        json.dump({"pid": 4711, "host": "elsewhere"}, lock)
        lock.flush()
        with pytest.raises(RunInUseError, match="pid 4711 on elsewhere"):
            prepared("workers.count=5", run_dir=Path("mine"))


@pytest.mark.usefixtures("unchecked")
def test_an_unlocked_run_is_not_in_use() -> None:
    run = prepared(run_dir=Path("mine"))
    (run.path / "LOCK").touch()
    assert prepared(run_dir=Path("mine")) == run


def test_nothing_is_made_for_a_configuration_with_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(QUADRATIC.parents[1]))
    with pytest.raises(ConfigError) as caught:
        prepared("workers.count=-1", "estimators.0.trunc_lenght=5", "outer_optimizer.type=adm")
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {"workers.count", "estimators[0].trunc_lenght", "outer_optimizer.type"}
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_fails_tells_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from unspool.learned_optimizers.mlp_lopt import MLPLOpt
class Optimizer(MLPLOpt):
    def init(self, key):
        raise RuntimeError("theta is nowhere")
"""
    (tmp_path / "failing.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tables = read_tables(QUADRATIC)
    tables["learned_optimizer"] = {"type": "failing:Optimizer"}
    with pytest.raises((FailedError, ConfigError), match="RuntimeError: theta is nowhere"):
        preparation.check_in_child(tables)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "was killed by SIGKILL, as .* memory runs out",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("raise MemoryError('no room for a table')", "MemoryError: no room for a table"),
        ("print('half an answer'); raise SystemExit(3)", "ended with exit code 3"),
    ],
)
def test_a_check_that_dies_tells_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    (tmp_path / "dying.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tables = read_tables(QUADRATIC)
    tables["learned_optimizer"] = {"type": "dying:Optimizer"}
    with pytest.raises((FailedError, ConfigError), match=told):
        preparation.check_in_child(tables)


@pytest.mark.usefixtures("unchecked")
def test_a_run_is_launched_again_by_its_name() -> None:
    first = prepared("workers.count=7")
    again = prepared("checkpoint.every=3", config=Path(first.name))
    assert again.path == first.path == Path("runs/quadratic_local-1")
    config = RunConfig.from_tables(read_tables(again.config_path))
    assert (config.workers.count, config.checkpoint.every) == (7, 3)


@pytest.mark.usefixtures("unchecked")
def test_a_file_comes_before_a_run_of_its_name(tmp_path: Path) -> None:
    prepared(run_dir=Path("runs/mine"))
    (tmp_path / "mine").write_bytes(QUADRATIC.read_bytes())
    assert prepared(config=Path("mine")).path == Path("runs/mine-1")


@pytest.mark.usefixtures("unchecked")
def test_a_name_of_nothing_is_refused_with_the_nearest_run() -> None:
    with pytest.raises(ConfigError, match=r"mine: cannot be read: .*there is no run in /.*/runs"):
        prepared(config=Path("mine"))
    prepared(run_dir=Path("runs/mine-1"))
    with pytest.raises(ConfigError, match=r"mine-2: .* no run of that name \(did you mean mine-1\?\)"):
        prepared(config=Path("mine-2"))


@pytest.mark.usefixtures("unchecked")
def test_outer_steps_that_are_done_cannot_be_undone() -> None:
    run = prepared(run_dir=Path("mine"))
    run.checkpoints_path.mkdir()
    for name in (
        "step-00000006.safetensors",
        "step-00000008.safetensors",
        "step-00000009.safetensors.corrupt",
    ):
        (run.checkpoints_path / name).touch()
    before = run.config_path.read_bytes()
    with pytest.raises(UsageError, match=r"outer_steps = 7: mine has already done 8 outer steps.*8 or more"):
        prepared("outer_steps=7", run_dir=Path("mine"))
    with pytest.raises(UsageError, match="outer_steps = 7"):
        prepared("outer_steps=7", run_dir=Path("mine"), accept=True)
    assert run.config_path.read_bytes() == before
    assert prepared("outer_steps=8", run_dir=Path("mine")) == run
