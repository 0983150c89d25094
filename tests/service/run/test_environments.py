import os
import stat
from pathlib import Path

import pytest

from service.config.run_config import RunConfig
from service.config.toml_document import with_overrides
from service.run.environments import (
    device_environment,
    ignored_variables,
    learner_environment,
    use_compilation_cache,
    worker_environment,
)
from tests.support.experiments import TINY
from workers.bootstrap import Devices


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's own cache folder, which no variable of JAX overrules."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "unspool" / "jax"


def config(*overrides: str) -> RunConfig:
    return RunConfig.from_tables(with_overrides(TINY, overrides))


def ignored(environ: dict[str, str], *overrides: str) -> list[tuple[str, str]]:
    return [(one.variable, one.value) for one in ignored_variables(config(*overrides), environ)]


def test_a_worker_computes_on_its_threads_and_devices_of_the_cpu() -> None:
    environment = worker_environment(config("workers.cpu_threads=3", "workers.devices=2"))
    assert environment["PJRT_NPROC"] == "3"
    assert environment["JAX_PLATFORMS"] == "cpu"
    assert environment["JAX_NUM_CPU_DEVICES"] == "2"


def test_a_worker_on_another_platform_also_has_the_cpu_for_host_arrays() -> None:
    environment = worker_environment(config("workers.num_gpus=0.5", "workers.platform=cuda"))
    assert environment["JAX_PLATFORMS"] == "cuda,cpu"
    assert environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.450"


def test_the_learner_updates_on_one_cpu_device_whatever_its_workers_have() -> None:
    environment = learner_environment(config("workers.cpu_threads=3", "workers.devices=2"))
    assert (environment["PJRT_NPROC"], environment["JAX_NUM_CPU_DEVICES"]) == ("3", "1")


def test_processes_share_a_private_cache(cache: Path) -> None:
    assert device_environment(Devices())["JAX_COMPILATION_CACHE_DIR"] == str(cache)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_a_cache_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    assert device_environment(Devices())["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "mine")


def test_a_run_goes_without_a_cache_where_none_can_be_created(cache: Path) -> None:
    cache.parent.touch()
    assert "JAX_COMPILATION_CACHE_DIR" not in device_environment(Devices())


def test_this_process_uses_the_cache_but_not_the_devices_of_a_run(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]})
    use_compilation_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(cache)
    assert all("CACHE" in name for name in os.environ)


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("PJRT_NPROC", "7", "workers.cpu_threads"),
        ("JAX_PLATFORMS", "tpu", "workers.platform"),
        ("JAX_NUM_CPU_DEVICES", "4", "workers.devices"),
        ("XLA_FLAGS", "--xla_force_host_platform_device_count=4", "workers.devices"),
    ],
)
def test_a_variable_that_the_configuration_overrules_is_named_with_its_key(
    name: str, value: str, key: str
) -> None:
    overruled = ignored_variables(config(), {name: value})
    assert (name, key) in [(one.variable, one.key) for one in overruled]


def test_variables_that_agree_with_the_configuration_are_not_named() -> None:
    agreeing = {"PJRT_NPROC": "3", "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "HOME": "/root"}
    assert ignored(agreeing, "workers.cpu_threads=3") == []
