"""Run configurations for the fault tests."""

from pathlib import Path
from typing import Any

LANES = 4


def one_hot_toml(
    *,
    outer_steps: int,
    seqs: int | None = None,
    mode: str = "sync",
    checkpoint_every: int = 5,
    heartbeat_s: float = 0.25,
    patience: int = 4,
    aggregation: str = "",
    workers: int = 2,
    **estimator: Any,
) -> str:
    """Return a configuration of four lanes with identifiable estimates: theta counts how often each was
    applied.
    """
    options = "\n".join(f"{name} = {_toml(value)}" for name, value in estimator.items())
    return f"""
seed = 3
outer_steps = {outer_steps}
outer_optimizer = {{ type = "sgd", learning_rate = {LANES}.0 }}

[aggregation]
mode = "{mode}"
lanes = {LANES}
{aggregation}

[[estimators]]
type = "tests.faults.one_hot:OneHot"
truncated_step = {{ type = "tests.faults.one_hot:Ledger", lanes = {LANES}, seqs = {seqs or outer_steps} }}
num_tasks = 1
seed = 3
{options}

[checkpoint]
every = {checkpoint_every}

[liveness]
heartbeat_s = {heartbeat_s}
patience = {patience}

[workers]
count = {workers}
"""


def with_poisoned_lanes(config: str, raises_while: Path) -> str:
    """Return the configuration with lanes 1 and 3 raising in their estimates while the file `raises_while`
    exists.
    """
    start = config.index("[[estimators]]")
    table = config[start : config.index("[checkpoint]")]
    return f'{config}\n{table}raises_while = "{raises_while}"\n'


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
