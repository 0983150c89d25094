import tomllib
from pathlib import Path
from typing import Any

import pytest

from service.config.run_config import RunConfig
from service.config.toml_document import read_tables, with_overrides, write_tables
from service.run.environments import learner_environment, worker_environment
from unspool.config.config_error import ConfigError
from unspool.experiment import Experiment

EXAMPLES = Path(__file__).parents[3] / "examples"
QUADRATIC = EXAMPLES / "quadratic_local.toml"


def config(*overrides: str) -> RunConfig:
    return RunConfig.from_tables(with_overrides(read_tables(QUADRATIC), overrides))


def problems_of(*overrides: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        config(*overrides)
    return {problem.key: str(problem) for problem in caught.value.problems}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_is_valid(path: Path) -> None:
    RunConfig.from_tables(read_tables(path))
    Experiment.from_tables(read_tables(path)).check()


def test_defaults_depend_on_the_mode() -> None:
    rules = [config(f"aggregation.mode={mode}").aggregation for mode in ("sync", "async", "quorum")]
    assert [(rule.staleness_window, rule.credits_per_lane) for rule in rules] == [(0, 1), (5, 2), (1, 2)]
    assert [rule.share_needed for rule in rules] == [1.0, 1.0, 0.75]


@pytest.mark.parametrize(
    ("override", "platform"),
    [("workers.count=1", "cpu"), ("workers.num_gpus=0.5", "cuda"), ("workers.platform=rocm", "rocm")],
)
def test_workers_compute_on_the_cpu_unless_they_ask_for_gpus(override: str, platform: str) -> None:
    assert config(override).workers.platform == platform


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_tls(host: str) -> None:
    assert config(f'learner.host="{host}"').learner.host == host


@pytest.mark.parametrize("override", ["learner.insecure=true", 'tls.directory="certs"'])
def test_beyond_loopback_a_run_is_encrypted_or_says_that_it_is_not(override: str) -> None:
    assert config('learner.host="10.0.0.5"', override).learner.host == "10.0.0.5"


def test_a_relative_folder_of_certificates_means_the_same_wherever_the_run_is_resumed() -> None:
    server = config('tls.directory="certs"').tls.server
    assert server is not None
    assert server.directory == Path.cwd() / "certs" / "server"


@pytest.mark.parametrize(
    ("override", "devices"),
    [
        ("workers.count=1", 1),
        ("workers.num_gpus=0.5", 1),
        ("workers.num_gpus=4", 4),
        ("workers={num_gpus = 4, devices = 2}", 2),
        ('workers={num_gpus = 4, platform = "cpu"}', 1),
        ('workers={platform = "tpu", devices = 4}', 4),
    ],
)
def test_a_worker_uses_the_gpus_that_it_asks_for_unless_told_otherwise(override: str, devices: int) -> None:
    assert config(override).workers.devices == devices


def test_a_run_on_one_device_is_the_run_that_it_was_before_there_could_be_several() -> None:
    assert "devices" not in config("workers.devices=1").training_tables()["workers"]


def test_only_workers_have_several_cpu_devices() -> None:
    several = config("workers.devices=2")
    assert worker_environment(several)["JAX_NUM_CPU_DEVICES"] == "2"
    assert learner_environment(several)["JAX_NUM_CPU_DEVICES"] == "1"


def test_a_configuration_written_out_is_the_same_configuration() -> None:
    first = config("workers.resources={TPU = 4}", 'tls.directory="certs"', 'learner.advertise="here"')
    assert RunConfig.from_tables(tomllib.loads(write_tables(first.to_tables()))) == first


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "estimators.0.std=0.5",
        "aggregation.lanes=2",
        "workers.cpu_threads=2",
        "workers.devices=2",
        "numerics.enable_x64=true",
        "numerics.threefry_partitionable=false",
        "numerics.environment.NVIDIA_TF32_OVERRIDE='0'",
    ],
)
def test_what_changes_theta_changes_the_digest(override: str) -> None:
    assert config(override).training_sha256() != config().training_sha256()


@pytest.mark.parametrize(
    "override",
    [
        "workers.count=1",
        "checkpoint.every=3",
        "learner.port=1234",
        "liveness.patience=9",
        "numerics.debug_nans=true",
        "numerics.rank_promotion=raise",
    ],
)
def test_what_only_controls_the_run_does_not_change_the_digest(override: str) -> None:
    assert config(override).training_sha256() == config().training_sha256()


def test_workers_are_told_how_to_compute_where_it_is_not_as_jax_does_by_default() -> None:
    assert "numerics" not in config("numerics.enable_x64=false").training_tables()
    chosen = config("numerics.enable_x64=true", "numerics.debug_nans=true")
    assert tomllib.loads(chosen.training_toml())["numerics"] == {"enable_x64": True, "debug_nans": True}
    assert RunConfig.from_tables(tomllib.loads(write_tables(chosen.to_tables()))) == chosen


def test_a_configuration_from_before_there_was_the_table_has_the_defaults() -> None:
    tables = config().to_tables()
    del tables["numerics"]
    assert RunConfig.from_tables(tables) == config()


def test_an_experiment_can_be_built_from_the_training_part() -> None:
    assert Experiment.from_toml(config().training_toml()).lanes == 4


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("worker.count=1", "worker", "did you mean workers?"),
        ("workers.cuont=1", "workers.cuont", "did you mean count?"),
        ("workers.count=-1", "workers.count", "must not be negative"),
        ("workers.count=300", "workers.count", "must not exceed max_count (256)"),
        ("workers.count=2.5", "workers.count", "must be an integer"),
        ("workers.num_gpus=-1", "workers.num_gpus", "must not be negative"),
        ("workers.cpu_threads=0", "workers.cpu_threads", "from 1"),
        ("workers.devices=0", "workers.devices", "from 1"),
        ("workers={num_gpus = 2, devices = 3}", "workers.devices", "must not exceed num_gpus (2)"),
        ("workers.platform=gpu", "workers.platform", 'one of "cpu", "cuda", "rocm", "tpu"'),
        ('workers.resources={TPU = "x"}', "workers.resources", "must be numbers"),
        ("aggregation.lanes=0", "aggregation.lanes", "from 1"),
        ('aggregation.lanes="4"', "aggregation.lanes", "must be an integer"),
        ("aggregation.mode=asinc", "aggregation.mode", '"sync", "async"'),
        ("aggregation.batch=3", "aggregation.batch", "must equal lanes in sync"),
        ("aggregation.quorum=0.5", "aggregation.quorum", "has no meaning in sync"),
        ("aggregation={lanes = 4, mode = 'quorum', quorum = 1.5}", "aggregation.quorum", "at most 1"),
        ("aggregation={lanes = 4, mode = 'quorum', grace_s = -1}", "aggregation.grace_s", "negative"),
        ("aggregation={lanes = 4, mode = 'quorum', batch = 3}", "aggregation.batch", "must equal lanes"),
        ("aggregation.max_staleness=3", "aggregation.max_staleness", "must be 0 in sync"),
        ("aggregation.batch=0", "aggregation.batch", "at least 1"),
        ("aggregation={lanes = 4, mode = 'async', batch = 9}", "aggregation.batch", "lanes x credits (8)"),
        ("aggregation.credits=0", "aggregation.credits", "at least 1"),
        ("learner.port=65536", "learner.port", "from 0 to 65535"),
        ("learner.port=-1", "learner.port", "from 0 to 65535"),
        ("learner={port = 80, http_port = 80}", "learner.port", "is used twice"),
        ('learner.host=""', "learner.host", "must not be empty"),
        ('learner.host="10.0.0.5"', "learner.host", "beyond loopback connections must be encrypted"),
        ('learner.host="0.0.0.0"', "learner.host", "learner.insecure = true"),
        ('learner.host="localhost.example"', "learner.host", "unspool certs init"),
        ('learner.advertise=""', "learner.advertise", "must not be empty"),
        ('learner.advertise="here:80"', "learner.advertise", "without a port"),
        ('tls.directory=""', "tls.directory", "must not be empty"),
        ("tls.mutual=true", "tls.mutual", "needs tls.directory"),
        ("checkpoint.every=0", "checkpoint.every", "at least 1"),
        ("checkpoint.keep=0", "checkpoint.keep", "at least 1"),
        ("liveness.heartbeat_s=0", "liveness.heartbeat_s", "above 0"),
        ("liveness.patience=1", "liveness.patience", "at least 2"),
        ("liveness.orphan_ttl_s=0", "liveness.orphan_ttl_s", "above 0"),
        ("checkpoint=3", "checkpoint", "must be a table"),
    ],
)
def test_a_bad_control_table_is_named(override: str, key: str, words: str) -> None:
    assert words in problems_of(override)[key]


def test_missing_lanes_are_named() -> None:
    tables: dict[str, Any] = {**read_tables(QUADRATIC), "aggregation": {}}
    with pytest.raises(ConfigError, match=r"aggregation\.lanes: missing"):
        RunConfig.from_tables(tables)


def test_all_problems_are_reported_together() -> None:
    bad = problems_of("workers.count=-1", "workers.cpu_threads=0", "checkpoint.evry=3", "foo=1")
    assert set(bad) == {"workers.count", "workers.cpu_threads", "checkpoint.evry", "foo"}
