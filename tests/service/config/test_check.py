"""The check of a whole configuration, with its components."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.config import check
from service.config.check import checked_config
from tests.support.experiments import TINY, toml_of
from unspool.config.config_error import ConfigError
from unspool.config.numerics import Numerics
from workers.numeric_environment import Foreign


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(toml_of(TINY))
    return path


class StandardInput:
    """Bytes on standard input."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def keys(caught: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [problem.key for problem in caught.value.problems]


def test_a_valid_configuration_is_returned_with_its_overrides(config: Path) -> None:
    checked = checked_config(config, ["workers.count=3", "seed=9"])
    assert (checked.workers.count, checked.experiment["seed"]) == (3, 9)


def test_a_configuration_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.sys, "stdin", StandardInput(toml_of(TINY).encode()))
    assert checked_config(Path("-"), []).workers.count == 1


def test_text_on_standard_input_that_is_no_toml_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.sys, "stdin", StandardInput(b"seed ="))
    with pytest.raises(ConfigError, match="standard input: is not TOML"):
        checked_config(Path("-"), [])


def test_problems_of_tables_and_components_are_reported_together(config: Path) -> None:
    overrides = ["workers.count=-1", "estimators.0.trunc_lenght=5", "outer_optimizer.type=adm"]
    with pytest.raises(ConfigError) as caught:
        checked_config(config, overrides)
    assert set(keys(caught)) == {"workers.count", "estimators[0].trunc_lenght", "outer_optimizer.type"}


def test_variables_that_the_configuration_overrules_are_reported(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    reported: list[Foreign] = []

    def report(foreign: Sequence[Foreign]) -> None:
        reported.extend(foreign)

    checked_config(config, [], report)
    assert [str(foreign).partition(" ")[0] for foreign in reported] == ["JAX_ENABLE_X64=1"]


def test_tasks_that_the_devices_cannot_share_evenly_are_refused_by_estimator(config: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_config(config, ["workers.devices=3"])
    assert "must be a multiple of workers.devices (3)" in str(caught.value)
    assert caught.value.problems[0].key == "estimators[0].num_tasks"


def test_code_that_computes_otherwise_than_the_configuration_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide_tasks.py").write_text(
        "import jax\nfrom unspool.tasks.quadratics import QuadraticTask\n"
        "jax.config.update('jax_enable_x64', True)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    override = "estimators.0.task_family={type = 'wide_tasks:QuadraticTask'}"
    try:
        with pytest.raises(ConfigError, match=r"numerics\.enable_x64 = false.*set jax_enable_x64 to True"):
            checked_config(config, [override])
    finally:
        Numerics().apply()


def test_an_estimator_of_host_code_runs_on_one_device(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "host_estimators.py").write_text(HOST_ESTIMATOR)
    monkeypatch.syspath_prepend(str(tmp_path))
    override = "estimators.0={type = 'host_estimators:OnHost'}"
    assert checked_config(config, [override]).workers.device_count == 1
    with pytest.raises(ConfigError, match="an estimator that defines compute_gradient_estimate cannot be"):
        checked_config(config, [override, "workers.devices=2"])


HOST_ESTIMATOR = """
from unspool.outer_trainers.gradient_estimator import GradientEstimator

class OnHost(GradientEstimator):
    def init_worker_state(self, worker_weights, key):
        return ()

    def estimate(self, worker_weights, key, state, data, with_summary):
        raise NotImplementedError

    def steps_of_data(self):
        return 0

    def compute_gradient_estimate(self, worker_weights, key, state, with_summary=False):
        raise NotImplementedError
"""
