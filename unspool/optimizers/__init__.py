"""Optimizers of inner and outer parameters."""

from unspool.optimizers.base import *  # noqa: F403 (the same names under both paths)
from unspool.optimizers.base import __all__ as __all__
