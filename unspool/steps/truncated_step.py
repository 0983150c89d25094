"""One step of one unroll: the base class of user-defined systems."""

import abc
from typing import ClassVar

from unspool.steps.step_outputs import EpisodesInExpectation, ResidentData, TruncatedUnrollOut
from unspool.types import Batch, OuterState, PRNGKey, Scalar, Theta, UnrollState


class TruncatedStep(abc.ABC):
    """One unroll of a system that depends on theta, step by step, with resets between episodes.

    All methods handle a single unroll, without a task axis. They must be pure functions of arrays that
    `vmap`, `jit` and `scan` can transform, and for `TruncatedGrad`, `FullGrad` and `DODGE` also
    differentiation. A system with plain configuration values is best written as a frozen dataclass: equal
    instances then share one compilation.

    The state carries everything that the next step needs, including the step counter of the episode. A system
    ends all its episodes in one of three ways:

    (a) The step with the last loss reports `is_done`, and the next step only resets, with `mask` False.
        An episode of T steps takes T + 1, as in `VectorizedLOptTruncatedStep`.
    (b) The step with the last loss does not report `is_done`. The next step only resets; it reports
        `is_done`, with `mask` False. An episode of T steps takes T + 1, as in `SimpleLOptTruncatedStep`.
    (c) The step with the last loss reports `is_done` and returns the initial state of the next episode.
        An episode takes exactly T steps, so truncations whose length divides T stay aligned with episodes.
        This is the best choice for new systems, allowed if `init_step_state` does not depend on theta. If
        it does, an estimator must know the theta of the initial state, which (a) and (b) show.

    Unbiased estimates require two rules. The end of an episode must not depend on theta or on losses:
    antithetic unrolls are compared step by step, so their episodes must end together. All randomness must
    come from `key`, which is the same for both members of an antithetic pair, so that noise unrelated to
    theta cancels.

    A complete system with convention (c):

        class Decay(TruncatedStep):
            def outer_init(self, key):
                return {"log_rate": jnp.float32(-3)}

            def init_step_state(self, theta, outer_state, key):
                return {"x": jnp.ones(()), "step": jnp.int32(0)}

            def unroll_step(self, theta, unroll_state, key, data, outer_state):
                x = unroll_state["x"] * (1 - jnp.exp(theta["log_rate"]))
                step = unroll_state["step"] + 1
                is_done = step >= 20
                beginning = self.init_step_state(theta, outer_state, key)
                moved = {"x": x, "step": step}
                state = jax.tree.map(lambda new, old: jnp.where(is_done, new, old), beginning, moved)
                return state, TruncatedUnrollOut(
                    loss=x**2, is_done=is_done, task_param=(), iteration=step, mask=jnp.bool_(True)
                )

    Estimators take `VectorizedTruncatedStep(Decay(), num_tasks=8)`. If a reset is expensive,
    `unspool.lazy_cond.lazy_cond` computes it only when needed.

    Attributes:
        keeps_last_state: whether the last state of an episode is available after its last step, as in (a) and
            (b). The objective "last_recompute" evaluates that state and requires True.
    """

    keeps_last_state: ClassVar[bool] = False

    @abc.abstractmethod
    def outer_init(self, key: PRNGKey) -> Theta:
        """Return an initial theta: a pytree of floating-point arrays. Consumes `key`."""

    @abc.abstractmethod
    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> UnrollState:
        """Return the state at the start of an episode: any pytree of arrays. Consumes `key`."""

    @abc.abstractmethod
    def unroll_step(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """Make one inner step, or in (a) and (b) a reset if the previous step ended its episode.

        Args:
            theta: the outer parameters for this step.
            unroll_state: from the previous step; the result has the same structure, shapes and dtypes.
            key: consumed; the same for both members of an antithetic pair.
            data: the batch from `get_batch` for this step, or the `ResidentData` of `resident_data`.
            outer_state: the part of the outer training state that a step may depend on.

        Returns:
            `(state, out)`; leaves of `out` have shape `[]`.
        """

    def get_batch(self, steps: int) -> Batch | None:
        """Return streamed host data for `steps` steps, leaves `[steps, ...]`, or None."""
        del steps
        return None

    def resident_data(self) -> ResidentData | None:
        """Return data that stays on the device and that every step indexes by itself, or None.

        A system that defines neither this nor `get_batch` has no data, and its steps get empty
        `ResidentData`.
        """
        return None

    def get_outer_batch(self, steps: int) -> Batch | None:
        """Return data for `steps` manual calls of `meta_loss_batch`; by default that of `get_batch`."""
        return self.get_batch(steps)

    def meta_loss_batch(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> Scalar:
        """Return the loss of a state on fresh outer data, without a step. Consumes `key`."""
        del theta, unroll_state, key, data, outer_state
        raise NotImplementedError(
            f"{type(self).__name__} has no meta_loss_batch; choose an objective other than last_recompute"
        )

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        """Return the expected properties of the episodes.

        The default is correct for every system up to a constant factor of the gradient.
        """
        del outer_state
        return EpisodesInExpectation()

    def label(self) -> str:
        """Return the name of the system in metrics."""
        return type(self).__name__
