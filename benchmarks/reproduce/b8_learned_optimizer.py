"""B8: a learned optimizer of 210 weights, compared with tuned Adam with learning-rate decay.

It is meta-trained with each estimator for the same number of inner steps, and evaluated on held-out tasks.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from matplotlib.axes import Axes

from benchmarks.reproduce.b8_problem import EPISODE_LENGTH, ClusterClassification, SmallLOpt
from benchmarks.reproduce.outer_loop import Recipe, trained
from benchmarks.reproduce.report import Result, Row
from unspool.optimizers.optax_opts import OptaxOptimizer
from unspool.optimizers.optimizer import Optimizer, OptState
from unspool.outer_trainers.full_es import FullES
from unspool.outer_trainers.full_grad import FullGrad
from unspool.outer_trainers.lopt_truncated_step import VectorizedLOptTruncatedStep
from unspool.outer_trainers.truncated_es import TruncatedES
from unspool.outer_trainers.truncated_es_shared_noise import NRES
from unspool.outer_trainers.truncated_grad import TruncatedGrad
from unspool.outer_trainers.truncated_pes import TruncatedPES
from unspool.outer_trainers.truncation_schedule import (
    ConstantTruncationSchedule,
    NeverEndingTruncationSchedule,
)
from unspool.types import PRNGKey

NAME = "Learned optimizer"

_WINDOW, _STD, _NUM_TASKS = 10, 0.01, 8
_OUTER_STEPS, _EPISODES = 1500, 150
_TAIL = 10  # average over the last tenth: single thetas differ by 0.02 in the final loss
_CLIP, _LEARNING_RATE = 1.0, 3e-3
_HELD_OUT_TASKS, _HELD_OUT_SEED, _LAST = 64, 20_261_122, 10

_LEARNING_RATES = tuple(0.004 * 2.0**k for k in range(8))
_SECOND_DECAYS = (0.95, 0.99, 0.999)
_DECAYS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "constant": lambda progress: jnp.ones_like(progress),
    "linear": lambda progress: 1 - progress,
    "cosine": lambda progress: (1 + jnp.cos(jnp.pi * progress)) / 2,
}

_NRES_MEAN, _NRES_LAST, _FULL_ES_GAP = 0.415, 0.205, 0.03

_NOTES = f"""\
A task is to classify points from 20 Gaussian clusters with a 16-32-10 network and batches of 32; each
episode of {EPISODE_LENGTH} steps has a new task. The learned optimizer is a per-parameter 10-16-2 network
with features similar to those of Celo2. Each estimator has {2 * _OUTER_STEPS * _WINDOW * _NUM_TASKS:,}
inner steps (TruncatedGrad as many, forwards and backwards; FullGrad half of that) in truncations of
{_WINDOW} with {_NUM_TASKS} pairs of std {_STD}. Theta is trained by Adam with learning rate
{_LEARNING_RATE} and clipping at {_CLIP:.0f}, and averaged over the last tenth of the outer steps. Losses
are means over {_HELD_OUT_TASKS} held-out tasks, for each seed. Adam is tuned on these same tasks, over
{len(_LEARNING_RATES)} learning rates and {len(_SECOND_DECAYS)} second-moment decays. The spread of the
clusters is chosen so that tuned Adam ends at about the loss that it had when the bars were set, 0.19. The
features were chosen from about ten designs, and the averaging of theta was added when NRES with the last
theta missed its second bar; both decisions used other held-out tasks than those shown. Rows without a bar
are for comparison."""


class HeldOut(NamedTuple):
    """Losses on held-out tasks, mean over tasks: `curves` `[seeds, EPISODE_LENGTH]`."""

    curves: npt.NDArray[np.float32]

    @property
    def mean(self) -> npt.NDArray[np.float32]:
        """`[seeds]`, over the episode."""
        over_episode: npt.NDArray[np.float32] = self.curves.mean(axis=1)
        return over_episode

    @property
    def last(self) -> npt.NDArray[np.float32]:
        """`[seeds]`, over the last 10 steps."""
        at_the_end: npt.NDArray[np.float32] = self.curves[:, -_LAST:].mean(axis=1)
        return at_the_end


def run(quick: bool) -> Result:
    """Runs all estimators with three seeds, or NRES with one."""
    adam = tuned_adam(
        _LEARNING_RATES[2:5] if quick else _LEARNING_RATES, _SECOND_DECAYS[1:2] if quick else _SECOND_DECAYS
    )
    names = ("NRES",) if quick else tuple(recipes())
    held_out = {name: meta_trained(recipes()[name], num_seeds=1 if quick else 3) for name in names}
    adam_rows = [Row((f"Adam, {name}", *_loss_cells(losses)), "") for name, losses in adam.items()]
    tuned = min(adam.values(), key=lambda losses: float(losses.mean[0]))
    return Result(
        title="B8: a learned optimizer beats tuned Adam",
        columns=("trained by", "mean loss of an episode", f"mean of its last {_LAST} steps"),
        rows=adam_rows + [_row(name, held_out, tuned) for name in names],
        figure=lambda axes: _draw(axes, {"Adam, tuned": tuned, **held_out}),
        notes=_NOTES,
    )


def recipes() -> dict[str, Recipe]:
    """Returns the training of theta by the name of the estimator."""
    online = _step(_NUM_TASKS, is_truncated=True)
    whole = _step(_NUM_TASKS, is_truncated=False)
    episodes = ConstantTruncationSchedule(EPISODE_LENGTH)
    in_windows = {
        "NRES": NRES(online, _WINDOW, std=_STD),
        "TruncatedPES": TruncatedPES(online, _WINDOW, std=_STD),
        "TruncatedES": TruncatedES(online, _WINDOW, std=_STD),
        "TruncatedGrad": TruncatedGrad(_step(2 * _NUM_TASKS, is_truncated=True), _WINDOW),
    }
    in_episodes = {"FullES": FullES(whole, episodes, std=_STD), "FullGrad": FullGrad(whole, episodes)}
    return {
        **{
            name: Recipe(estimator, _outer_optimizer(), _OUTER_STEPS)
            for name, estimator in in_windows.items()
        },
        **{name: Recipe(estimator, _outer_optimizer(), _EPISODES) for name, estimator in in_episodes.items()},
    }


def meta_trained(recipe: Recipe, num_seeds: int) -> HeldOut:
    """Trains theta with each seed, and the held-out tasks with each theta."""
    tail = recipe.num_steps // _TAIL
    thetas = jax.tree.map(lambda leaf: leaf[:, -tail:].mean(axis=1), trained(recipe, num_seeds))
    evaluate = jax.jit(jax.vmap(lambda theta: held_out_curve(SmallLOpt().opt_fn(theta))))
    return HeldOut(np.asarray(evaluate(thetas)))


def tuned_adam(learning_rates: tuple[float, ...], second_decays: tuple[float, ...]) -> dict[str, HeldOut]:
    """Returns the Adam with the lowest mean loss for each kind of learning-rate decay."""
    candidates = jnp.asarray(list(itertools.product(learning_rates, second_decays)))
    progress = jnp.arange(EPISODE_LENGTH) / EPISODE_LENGTH

    @jax.jit
    def curves(factors: jax.Array) -> jax.Array:
        def curve(candidate: jax.Array) -> jax.Array:
            learning_rate, second_decay = candidate
            adam = optax.adam(lambda count: learning_rate * factors[count], b2=second_decay)
            return held_out_curve(OptaxOptimizer(adam))

        return cast(jax.Array, jax.lax.map(curve, candidates))

    best = {}
    for name, decay in _DECAYS.items():
        of_candidates = np.asarray(curves(decay(progress)))
        winner = int(of_candidates.mean(axis=1).argmin())
        learning_rate, second_decay = candidates[winner]
        best[f"{name} {learning_rate:.3f}, b2 {second_decay:.3f}"] = HeldOut(of_candidates[[winner]])
    return best


def held_out_curve(optimizer: Optimizer) -> jax.Array:
    """`[EPISODE_LENGTH]`: mean training loss, before each step, of tasks that no optimizer was trained on."""
    keys = jax.random.split(jax.random.key(_HELD_OUT_SEED), _HELD_OUT_TASKS)
    return jnp.mean(jax.vmap(lambda key: _inner_curve(optimizer, key))(keys), axis=0)


def _inner_curve(optimizer: Optimizer, key: PRNGKey) -> jax.Array:
    task_key, init_key, steps_key = jax.random.split(key, 3)
    task = ClusterClassification().sample_task(task_key)

    def step(state: OptState, key: PRNGKey) -> tuple[OptState, jax.Array]:
        loss, grad = jax.value_and_grad(task.loss)(optimizer.get_params(state), key, ())
        return optimizer.update(state, grad, loss=loss), task.normalizer(loss)

    state = optimizer.init(task.init(init_key), num_steps=EPISODE_LENGTH)
    return jax.lax.scan(step, state, jax.random.split(steps_key, EPISODE_LENGTH))[1]


def _step(num_tasks: int, is_truncated: bool) -> VectorizedLOptTruncatedStep:
    """Returns parallel tasks; those unrolled in truncations are at different steps of their episodes."""
    schedule = ConstantTruncationSchedule(EPISODE_LENGTH) if is_truncated else NeverEndingTruncationSchedule()
    return VectorizedLOptTruncatedStep(
        ClusterClassification(),
        SmallLOpt(),
        schedule,
        num_tasks,
        random_initial_iteration_offset=EPISODE_LENGTH if is_truncated else 0,
    )


def _outer_optimizer() -> optax.GradientTransformation:
    return optax.chain(optax.clip(_CLIP), optax.adam(_LEARNING_RATE))


def _row(name: str, held_out: Mapping[str, HeldOut], tuned_adam: HeldOut) -> Row:
    bar, passed = "", None
    nres, this = held_out["NRES"], held_out[name]
    if name == "NRES":
        bar = f"mean ≤ {_NRES_MEAN} and below tuned Adam's, last ≤ {_NRES_LAST}"
        highest_mean = min(_NRES_MEAN, float(tuned_adam.mean[0]))
        passed = bool((nres.mean <= highest_mean).all() and (nres.last <= _NRES_LAST).all())
    elif name == "TruncatedPES":
        bar = "mean and last above those of NRES"
        passed = bool((this.mean > nres.mean).all() and (this.last > nres.last).all())
    elif name == "TruncatedES":
        bar = "last above that of TruncatedPES"
        passed = bool((this.last > held_out["TruncatedPES"].last).all())
    elif name == "FullES":
        bar = f"mean at least {_FULL_ES_GAP} above that of NRES"
        passed = bool((this.mean >= nres.mean + _FULL_ES_GAP).all())
    return Row((name, *_loss_cells(this)), bar, passed)


def _loss_cells(losses: HeldOut) -> tuple[str, str]:
    return " / ".join(f"{loss:.3f}" for loss in losses.mean), " / ".join(
        f"{loss:.3f}" for loss in losses.last
    )


def _draw(axes: Axes, held_out: Mapping[str, HeldOut]) -> None:
    for name, losses in held_out.items():
        axes.semilogy(
            losses.curves.mean(axis=0), label=name, linewidth=2 if name in ("NRES", "Adam, tuned") else 1
        )
    axes.set_xlabel("inner step")
    axes.set_ylabel("loss on held-out tasks")
    axes.legend(frameon=False, fontsize="small")
