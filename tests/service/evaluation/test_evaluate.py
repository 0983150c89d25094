import numpy as np
import pytest

from protos.exit_codes import UsageError
from service.evaluation.evaluate import INITIALISATION, META_TRAINED, Mean, evaluate, trained_steps
from tests.unspool.test_experiment import TEXT, tables, walk
from unspool.experiment import Experiment

GOOD_THETA = {"log_lr": np.float32(np.log(0.2))}


def test_a_good_theta_beats_its_initialisation_on_held_out_tasks() -> None:
    contenders = {one.name: one for one in evaluate(Experiment.from_toml(TEXT), GOOD_THETA, 4, 30)}
    trained, initial = contenders[META_TRAINED], contenders[INITIALISATION]
    assert trained.final_loss["train"].mean < 0.1 * initial.final_loss["train"].mean
    assert len(contenders) == 3


def test_all_optimizers_begin_with_the_same_tasks() -> None:
    contenders = list(evaluate(Experiment.from_toml(TEXT), GOOD_THETA, 4, 20))
    for one in contenders[1:]:
        first, other = contenders[0].curves["eval/train/loss"], one.curves["eval/train/loss"]
        np.testing.assert_allclose(first[:, 0], other[:, 0], rtol=1e-6)


@pytest.mark.parametrize(("estimator", "steps"), [(0, 30), (1, 20)])
def test_tasks_are_trained_as_long_as_in_meta_training(estimator: int, steps: int) -> None:
    assert trained_steps(Experiment.from_toml(TEXT), estimator) == steps


def test_a_system_without_tasks_cannot_be_evaluated() -> None:
    without = {name: table for name, table in tables().items() if name != "learned_optimizer"}
    experiment = Experiment.from_tables({**without, "estimators": [walk()]})
    with pytest.raises(UsageError, match="needs a task_family"):
        list(evaluate(experiment, {"stride": np.ones(2)}, 2, 10))


def test_means_leave_out_what_diverged() -> None:
    mean = Mean.of(np.asarray([1.0, 3.0, np.nan, np.inf]))
    assert (mean.mean, mean.standard_error) == (2.0, pytest.approx(1.0))
