"""Reuse of memory in processes that receive large bodies."""

import contextlib
import ctypes
from typing import Final

_TRIM_THRESHOLD: Final = -1  # parameter numbers of glibc's mallopt, as in malloc.h
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_REUSED_BYTES: Final = 128 << 20
_KEPT_BYTES: Final = 512 << 20


def reuse_large_blocks() -> None:
    """Configure glibc to reuse large blocks instead of returning each to the system.

    By default, every large block is mapped anew, and the page faults of a 32 MiB body cost more than all its
    processing. In exchange, the process keeps up to 512 MiB of freed memory. No-op without glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _REUSED_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, 1)
