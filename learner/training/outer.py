"""The computation of an outer update: from a batch of gradients to the next theta."""

from typing import Any, cast

import jax
import numpy as np
from numpy.typing import NDArray

from learner.errors import CorruptCheckpointError
from learner.state.aggregation import Batch
from learner.state.buffer import BufferedPush
from learner.storage.thetas import Published
from learner.storage.update_record import Effect, Outcome
from protos import codec
from unspool.experiment import Experiment
from unspool.lanes import optimizer_key, theta_key
from unspool.outer_trainers.gradient_learner import AggregatedGradient, GradientLearner, GradientLearnerState
from unspool.types import PyTree


class OuterLearner:
    """Theta and the outer optimizer. Not thread-safe; published thetas are immutable."""

    def __init__(self, experiment: Experiment, batch: int) -> None:
        self._learner = GradientLearner(experiment.init, experiment.outer_optimizer, experiment.outer_steps)
        self._seed = experiment.seed
        self._batch = batch
        shape = experiment.theta_shape()
        self.theta_shape = shape
        self._treedef = jax.tree.structure(shape)
        self._zeros = [np.zeros(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shape)]
        self.schema = codec.schema_of(shape)
        self.state: GradientLearnerState | None = None

    def initialise(self) -> Published:
        """Initialise theta for outer step 0 and return it."""
        self.state = self._learner.init(theta_key(self._seed))
        return Published.of(0, self._body())

    def restore(self, state: GradientLearnerState, newest: Published) -> None:
        """Continue from a checkpoint.

        Raises:
            CorruptCheckpointError: the theta in `state` differs from the last published one.
        """
        self.state = state
        if Published.of(newest.outer_step, self._body()).sha256 != newest.sha256:
            raise CorruptCheckpointError("the outer optimizer's theta is not the one that was published")

    def state_shape(self) -> PyTree:
        """Return the structure, shapes and dtypes of `state`."""
        return jax.eval_shape(self._learner.init, theta_key(self._seed))

    def theta(self) -> PyTree:
        """Return theta."""
        return self._learner.get_meta_params(self._ready())

    def warm_up(self) -> None:
        """Compile the update with zero gradients, so that the first real update does not wait for it.

        The state does not change. The gradients have weight 1, because the mean loss without any weight is
        NaN, at which `numerics.debug_nans` raises.
        """
        model_state = self._learner.get_meta_model_state(self._ready())
        entry = self._aggregated(self._zeros, model_state, mean_loss=0.0, weight=1.0)
        key = optimizer_key(self._seed, 1)
        _, metrics = self._learner.update(self._ready(), [entry] * self._batch, key=key)
        metrics["used"].block_until_ready()

    def apply(self, outer_step: int, batch: Batch) -> Outcome:
        """Apply `batch` to theta and return the result, the theta of `outer_step + 1`.

        The order of the entries determines the mean bit for bit. An update that would make theta or the
        optimizer's state non-finite is reverted: both stay unchanged, but the step counts.
        """
        key = optimizer_key(self._seed, outer_step + 1)
        self.state, metrics = self._learner.update(self._ready(), self._entries(batch), key=key)
        used, applied = int(metrics["used"]), bool(metrics["applied"])
        effect = Effect.MOVED if applied else Effect.REVERTED if used else Effect.EMPTY
        return Outcome(
            published=Published.of(outer_step + 1, self._body()),
            theta=self.theta(),
            learner_state=self.state,
            effect=effect,
            loss=float(metrics["mean_loss"]) if used else None,
            grad_norm=float(metrics["grad_norm"]),
            update_norm=float(metrics["update_norm"]),
        )

    def _ready(self) -> GradientLearnerState:
        if self.state is None:
            raise RuntimeError("OuterLearner: neither initialised nor restored")
        return self.state

    def _body(self) -> bytes:
        return codec.encode(self.theta(), self.schema)

    def _entries(self, batch: Batch) -> list[AggregatedGradient]:
        model_state = self._learner.get_meta_model_state(self._ready())
        return [self._entry(item, model_state) for item in batch]

    def _entry(self, item: BufferedPush | None, model_state: PyTree) -> AggregatedGradient:
        """Return a gradient of the batch; a missing or non-finite one becomes zeros with weight 0."""
        if item is None or item.grad is None:
            return self._aggregated(self._zeros, model_state, mean_loss=0.0, weight=0.0)
        return self._aggregated(list(item.grad), model_state, item.mean_loss, item.weight)

    def _aggregated(
        self, leaves: list[NDArray[Any]], model_state: PyTree, mean_loss: float, weight: float
    ) -> AggregatedGradient:
        grads = jax.tree.unflatten(self._treedef, leaves)
        # Use the dtypes of the single-process trainer, so that both run the same program, bit for bit.
        return AggregatedGradient(grads, model_state, _scalar(mean_loss), _scalar(weight))


def _scalar(value: float) -> jax.Array:
    """Return a NumPy float32, which costs a tenth of a JAX array as an argument of a jitted function."""
    return cast(jax.Array, np.float32(value))
