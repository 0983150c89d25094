"""One step of one unroll: the class that a system of one's own implements."""

import abc
from typing import ClassVar

from unspool.steps.step_outputs import EpisodesInExpectation, ResidentData, TruncatedUnrollOut
from unspool.types import Batch, OuterState, PRNGKey, Scalar, Theta, UnrollState


class TruncatedStep(abc.ABC):
    """One unroll of a system that depends on theta, step by step, with resets between episodes.

    Everything here is about a single unroll, without a task axis, and must be a pure function of arrays that
    `vmap`, `jit` and `scan` (and for `TruncatedGrad`, `FullGrad` and `DODGE` differentiation) can transform.
    Configured by plain values, a system is best a frozen dataclass: equal ones then share one compilation.

    The state carries whatever the next step needs, the counter of the episode's steps included. An episode
    ends in one of three ways. Whichever a system chooses, it keeps to it:

    (a) The step with the last loss reports `is_done`, and the next step only resets, with `mask` False.
        An episode of T steps takes T + 1. So does `VectorizedLOptTruncatedStep`.
    (b) The step with the last loss reports nothing; the next one only resets, and it is that one which
        reports `is_done`, with `mask` False. T + 1 steps too. So does `SimpleLOptTruncatedStep`.
    (c) The step with the last loss reports `is_done` and returns the state of the next episode's beginning.
        An episode takes exactly T steps, so that truncations whose length divides T stay aligned with
        episodes. Best for systems written by hand, and allowed if `init_step_state` does not depend on
        theta: where it does, an estimator must know under which theta the beginning was made, and (a) or (b)
        tells.

    Two rules make estimates unbiased. When an episode ends must not depend on theta or on losses: antithetic
    unrolls are compared step by step, so their episodes must end together. And all randomness comes from
    `key`, which both members of an antithetic pair are given alike: what is not due to theta then cancels.

    A whole system, after (c):

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

    `VectorizedTruncatedStep(Decay(), num_tasks=8)` is what estimators take. Where a reset is costly,
    `unspool.lazy_cond.lazy_cond` computes it only when it is needed.

    Attributes:
        keeps_last_state: whether an episode's last state is there after its last step, which is so in (a) and
            (b). The objective "last_recompute" evaluates that state, and needs a system that says so.
    """

    keeps_last_state: ClassVar[bool] = False

    @abc.abstractmethod
    def outer_init(self, key: PRNGKey) -> Theta:
        """An initial theta: a pytree of floating-point arrays. Consumes `key`."""

    @abc.abstractmethod
    def init_step_state(self, theta: Theta, outer_state: OuterState, key: PRNGKey) -> UnrollState:
        """The state at the start of an episode: any pytree of arrays. Consumes `key`."""

    @abc.abstractmethod
    def unroll_step(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> tuple[UnrollState, TruncatedUnrollOut]:
        """One inner step, or in (a) and (b) a reset if the previous step ended its episode.

        Args:
            theta: the parameters under which this step is taken.
            unroll_state: from the previous step; the result has the same structure, shapes and dtypes.
            key: consumed. Both members of an antithetic pair get the same.
            data: what `get_batch` gave for this step, or the `ResidentData` of `resident_data`.
            outer_state: what of outer training a step may depend on.

        Returns:
            `(state, out)`; leaves of `out` have shape `[]`.
        """

    def get_batch(self, steps: int) -> Batch | None:
        """Data for `steps` steps, leaves `[steps, ...]`, if it is streamed from the host; else None."""
        del steps
        return None

    def resident_data(self) -> ResidentData | None:
        """Data that every step indexes by itself, for systems whose data fits on the device; else None.

        A system that has neither this nor a `get_batch` has no data, and its steps are given an empty one.
        """
        return None

    def get_outer_batch(self, steps: int) -> Batch | None:
        """Data for `steps` calls of `meta_loss_batch` by hand, like `get_batch`, which is the default."""
        return self.get_batch(steps)

    def meta_loss_batch(
        self, theta: Theta, unroll_state: UnrollState, key: PRNGKey, data: Batch, outer_state: OuterState
    ) -> Scalar:
        """The loss of a state on fresh outer data, without a step. Consumes `key`."""
        del theta, unroll_state, key, data, outer_state
        raise NotImplementedError(
            f"{type(self).__name__} has no meta_loss_batch; choose an objective other than last_recompute"
        )

    def episodes(self, outer_state: OuterState) -> EpisodesInExpectation:
        """What is known of the episodes beforehand.

        The default is right, up to a constant factor of the gradient, for every system.
        """
        del outer_state
        return EpisodesInExpectation()

    def label(self) -> str:
        """What metrics call the system."""
        return type(self).__name__
