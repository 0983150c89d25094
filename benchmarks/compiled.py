"""The cost of one estimate: compilation, memory and time per call."""

import dataclasses
import time

import jax
import jax.numpy as jnp

from benchmarks.interleaved import Timing
from unspool.outer_trainers.gradient_estimator import GradientEstimator, OuterState, WorkerWeights


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of one estimate.

    Attributes:
        name: what was measured.
        compile_s: CPU time of tracing and compilation, on which other load of the machine has little effect.
        megabytes: peak memory of the program as planned by XLA: arguments, results and scratch memory.
        timing: of one call.
        inner_steps: per call, antithetic ones included.
    """

    name: str
    compile_s: float
    megabytes: float
    timing: Timing
    inner_steps: int

    def __str__(self) -> str:
        rate = self.inner_steps / (self.timing.median_ms / 1e3)
        return (
            f"{self.name:<44} {self.timing.median_ms:9.3f} ms (min {self.timing.minimum_ms:9.3f})   "
            f"{rate:11,.0f} inner steps/s   compile {self.compile_s:5.1f} CPU s   "
            f"memory {self.megabytes:8.2f} MB"
        )


def cost(name: str, estimator: GradientEstimator, seconds: float) -> Cost:
    """Compiles one estimate and repeats it for `seconds`, each time with the previous unroll state."""
    key = jax.random.PRNGKey(0)
    weights = WorkerWeights(estimator.truncated_step.outer_init(key), None, OuterState(jnp.int32(0)))
    state = jax.jit(estimator.init_worker_state)(weights, key)
    data = estimator.get_data()
    start = time.process_time()
    estimate = jax.jit(lambda *arguments: estimator.estimate(*arguments, with_summary=False)[0])
    program = estimate.lower(weights, key, state, data).compile()
    compile_s = time.process_time() - start
    plan = program.memory_analysis()
    planned = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    out = jax.block_until_ready(program(weights, key, state, data))
    inner_steps, calls = int(out.inner_steps), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(calls) < 3:
        start = time.perf_counter()
        out = program(weights, key, out.unroll_state, data)
        jax.block_until_ready(out.mean_loss)
        calls.append(time.perf_counter() - start)
    return Cost(name, compile_s, planned / 1e6, Timing(tuple(calls)), inner_steps)
