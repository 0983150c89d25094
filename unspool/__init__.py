"""Unspool: meta-training of learned optimizers, and of any other unrolled system.

The library consists of pure functions of arrays. An inner problem is a `Task`, sampled from a `TaskFamily`.
An `Optimizer` trains it, and a `LearnedOptimizer` maps outer parameters theta to an `Optimizer`. A
`GradientEstimator` estimates the gradient with respect to theta. These classes and their implementations are
attributes of this package (`unspool.TruncatedPES`, `unspool.MLPLOpt`). They are imported on first use, so
that `import unspool` is fast. Type checkers find them in `__init__.pyi`.
"""

import importlib

from unspool.config.component_names import PUBLIC_NAMES
from unspool.config.config_error import did_you_mean

__all__ = [*PUBLIC_NAMES]  # pyright: ignore[reportUnsupportedDunderAll] (__init__.pyi has the names)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in PUBLIC_NAMES:
        remedy = did_you_mean(name, PUBLIC_NAMES)
        raise AttributeError(f"module 'unspool' has no attribute {name!r} ({remedy})")
    module, _, attribute = PUBLIC_NAMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
