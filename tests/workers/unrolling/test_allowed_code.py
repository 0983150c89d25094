import tomllib

import pytest

from protos.exit_codes import ExitCode, RefusedError
from tests.support.experiments import QUADRATIC, toml_of
from tests.workers.fake_learner import EXPERIMENT, FakeLearner
from workers.unrolling.allowed_code import COMPONENT_PACKAGES, check_components


def tables(name: str) -> dict[str, object]:
    return tomllib.loads(EXPERIMENT.replace('"FixedDimQuadraticFamily"', f'"{name}"'))


@pytest.mark.parametrize("name", ["subprocess:Popen", "os:system", "ctypes:CDLL", "builtins:eval"])
def test_a_component_is_never_a_part_of_python(name: str) -> None:
    with pytest.raises(RefusedError, match=f"does not run {name}"):
        check_components(tables(name), "")


@pytest.mark.parametrize("name", ["FixedDimQuadraticFamily", "my_tasks.maze:MazeFamily"])
def test_other_components_are_as_before(name: str) -> None:
    check_components(tables(name), "")


def test_a_worker_may_name_the_packages_that_it_trusts() -> None:
    check_components(tables("my_tasks.maze:MazeFamily"), "unspool, my_tasks")
    with pytest.raises(RefusedError, match="UNSPOOL_COMPONENT_PACKAGES = unspool does not have my_tasks"):
        check_components(tables("my_tasks.maze:MazeFamily"), "unspool")


def test_a_learner_that_wants_a_program_started_gets_a_refusal(start, tmp_path, monkeypatch):
    monkeypatch.delenv(COMPONENT_PACKAGES, raising=False)
    proof, learner = tmp_path / "proof", FakeLearner()
    task = f"estimators.0.task_family={{type='subprocess:Popen', args=['touch', '{proof}']}}"
    learner.reply.experiment_toml = toml_of(QUADRATIC, task)
    running = start(learner)
    assert "subprocess:Popen" in learner.next("log").log.text
    assert running.exit_code() == ExitCode.REFUSED
    assert not proof.exists()
