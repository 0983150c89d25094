"""Theta is a function of the configuration, not of the environment of a process."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from protos.exit_codes import ExitCode
from protos.rpc.roles import Role
from service.run.run_directory import RunDirectory
from tests.end_to_end.launched import LaunchedRun, command, in_process_digest, launched
from tests.support.experiments import TINY, toml_of
from tests.support.patience import PATIENCE_S

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

HOSTILE: Final = {
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_ENABLE_X64": "1",
    "JAX_DEBUG_NANS": "1",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DISABLE_JIT": "1",
    "JAX_RANDOM_SEED_OFFSET": "7",
    "JAX_TRANSFER_GUARD": "disallow",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("environment") / "tiny.toml"
    path.write_text(toml_of(TINY))
    return path


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> str:
    """Theta's digest after four outer steps of the loop in one process, in a neutral environment."""
    return in_process_digest(config)


@pytest.fixture
def hostile_run(config: Path, tmp_path: Path) -> Iterator[LaunchedRun]:
    """A run without workers of its own, launched in a hostile environment."""
    options = ("--backend", "local", "--workers", "0")
    with launched(config, tmp_path / "run", *options, variables=HOSTILE) as run:
        run.wait_for(lambda _: True)
        yield run


def bare_worker(run: LaunchedRun, name: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a worker that is started by hand, to its end."""
    directory = RunDirectory(run.run_dir)
    found = ["--learner", directory.endpoints().learner, "--token-file", directory.token_path(Role.WORKER)]
    return subprocess.run(
        command("worker", *found, "--name", name),
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_bare_worker_computes_as_the_run_does_or_is_refused(
    hostile_run: LaunchedRun, undisturbed: str
) -> None:
    refused = bare_worker(hostile_run, "other", {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"})
    assert refused.returncode == ExitCode.REFUSED, refused.stderr
    assert "XLA_FLAGS=--xla_cpu_enable_fast_math=true" in refused.stderr
    assert "start it without XLA_FLAGS" in refused.stderr
    taken = bare_worker(hostile_run, "bare", HOSTILE)
    assert taken.returncode == 0, taken.stderr
    assert "JAX_THREEFRY_PARTITIONABLE=0 is ignored" in taken.stderr
    assert hostile_run.finish() == 0, hostile_run.output()
    assert hostile_run.digest() == undisturbed
    for variable in HOSTILE:
        assert f"{variable}={HOSTILE[variable]} is ignored" in hostile_run.output()


def test_a_run_that_is_resumed_in_another_environment_or_with_diagnostics_is_the_same_run(
    config: Path, undisturbed: str, tmp_path: Path
) -> None:
    diagnostics = ["--set", "numerics.rank_promotion=raise", "--set", "numerics.debug_nans=true"]
    for options, variables in ((["--set", "outer_steps=2"], HOSTILE), (diagnostics, {})):
        all_options = ("--backend", "local", "--workers", "1", *options)
        with launched(config, tmp_path / "run", *all_options, variables=variables) as run:
            assert run.finish() == 0, run.output()
    assert run.digest() == undisturbed
