"""Run directories that earlier programs wrote are resumed, whatever has been renamed since."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.launched import answer, unspool
from unspool.exported import load_exported

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

STORED = Path(__file__).parents[1] / "data" / "stored_2026_11"


@pytest.mark.parametrize("name", ["killed", "asynchronous"])
def test_a_stored_run_is_resumed_and_ends(name: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(STORED / name, tmp_path / name))
    resumed = unspool("launch", run, "--backend", "local")
    assert resumed.returncode == 0, resumed.stderr
    status = answer("status", run)
    assert (status["state"], status["outer_step"]) == ("FINISHED", 400)
    if name == "killed":
        # Up to rounding, theta is that of a run without interruption: the lanes' states were used, too.
        assert unspool("export", run, "--out", tmp_path / "theta.safetensors").returncode == 0
        theta = load_exported(tmp_path / "theta.safetensors").theta
        uninterrupted = load_exported(STORED / "learnable_adam.safetensors").theta
        for leaf, value in uninterrupted.items():
            np.testing.assert_allclose(theta[leaf], value, rtol=1e-3, err_msg=leaf)


def test_a_stored_run_is_shown_without_resuming_it(tmp_path: Path) -> None:
    run = Path(shutil.copytree(STORED / "asynchronous", tmp_path / "asynchronous"))
    assert [checkpoint["outer_step"] for checkpoint in answer("checkpoint", "list", run)] == [173]
    status = answer("status", run)
    assert (status["state"], status["outer_step"], status["mode"]) == ("STOPPED", 173, "async")
    events = unspool("events", run)
    assert "worker_joined" in events.stdout
