"""The recipes work: tests write the code of the page to files and train with it."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from unspool.experiment import Experiment
from unspool.outer_trainers.gradient_estimator import OuterState, WorkerWeights
from unspool.outer_trainers.gradient_learner import SingleMachineGradientLearner
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_step import VectorizedTruncatedStep
from unspool.systems.lorenz import LorenzFit

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/recipes.md").read_text()
SERVICE = re.search(r"service Admin \{(.*?)\n\}", (ROOT / "protos/unspool/v1/admin.proto").read_text(), re.S)
RPCS = re.findall(r"rpc (\w+)\(", SERVICE[1] if SERVICE else "")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page."""
    folder = tmp_path_factory.mktemp("recipes")
    for code in blocks("python"):
        name = code.splitlines()[0].removeprefix("# ")
        (folder / name).write_text(code)
    (text,) = blocks("toml")
    (folder / "config.toml").write_text(text)
    return folder


@pytest.fixture
def experiment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.syspath_prepend(folder)
    return Experiment.from_toml((folder / "config.toml").read_text())


def test_the_page_has_a_recipe_for_each_piece() -> None:
    assert re.findall(r"^## (.*)", PAGE, flags=re.MULTILINE) == [
        "A gradient estimator",
        "A learned optimizer",
        "A task",
        "An RPC",
        "A status figure",
    ]


def test_an_estimator_an_optimizer_and_a_task_train_together(experiment: Experiment) -> None:
    experiment.check()
    estimators = [experiment.estimator(lane) for lane in range(experiment.lanes)]
    learner = SingleMachineGradientLearner(experiment.init, estimators, experiment.outer_optimizer)
    key = jax.random.PRNGKey(experiment.seed)
    state = learner.init(key)
    before = learner.get_meta_params(state)
    for _ in range(3):
        state, loss, metrics = learner.update(state, key)
        assert np.isfinite(loss)
        assert metrics["applied"] == 1
    assert jax.tree.map(np.shape, before) == jax.tree.map(np.shape, learner.get_meta_params(state))
    assert learner.get_meta_params(state)["log_lr"] != before["log_lr"]


def test_the_estimator_agrees_with_the_derivative_on_a_smooth_system(experiment: Experiment) -> None:
    # With so small a noise, the bias of a one-sided difference is far below the standard error.
    estimator_class = type(experiment.estimator(0))
    step = VectorizedTruncatedStep(LorenzFit(episode_length=50), num_tasks=4096)
    weights = WorkerWeights(step.outer_init(jax.random.key(0)), None, OuterState(0))
    ours = estimator_class(step, unroll_length=5, std=1e-3)
    exact = TruncatedGrad(step, 5)
    grads = []
    for estimator in (ours, exact):
        state = estimator.init_worker_state(weights, jax.random.key(1))
        out, _ = estimator.compute_gradient_estimate(weights, jax.random.key(2), state)
        grads.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(out.grad)]))
    five_sigma = 5 * np.sqrt((2 + 1) / 4096) * np.linalg.norm(grads[1])  # variance (d + 1) |g|^2 a direction
    np.testing.assert_allclose(grads[0], grads[1], atol=five_sigma)


def test_the_service_accepts_the_examples_by_name(folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "service", "check", "config.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rpc", RPCS)
def test_every_rpc_is_in_the_servicer_that_the_recipe_names(rpc: str) -> None:
    place = "learner/servers/admin_service.py"
    assert f"`{place}`" in PAGE
    assert re.search(rf"\b{rpc}\b", (ROOT / place).read_text()), f"{rpc} is not in {place}"


@pytest.mark.parametrize("place", re.findall(r"^\| [^|]+ \| `([\w/.]+)` \|$", PAGE, flags=re.MULTILINE))
def test_the_files_of_a_recipe_exist_and_contain_the_example(place: str) -> None:
    text = (ROOT / place).read_text()
    assert re.search(r"[Rr]eset[-_]?[Ll]ane|updates_per_s|reset_lane|Role", text), place
