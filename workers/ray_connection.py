"""How this process becomes part of a Ray cluster. `ray` is handed in: only `workers.ray_pool` imports it."""

import contextlib
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from typing import Any

NAMESPACE = "unspool"
"""Where actors of all runs are; without one that is said, a later driver would not find them."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray tells of every killed worker on stdout, whatever its logging is set to; pools report it.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
}
_OBJECT_STORE_BYTES = 128 * 2**20  # no gradient passes through it; Ray's default is a third of the memory


def set_environment() -> None:
    """Set what Ray reads from the environment when it is imported, unless the user has said otherwise."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(ray: Any, address: str | None) -> None:
    """Become a driver of the cluster at `address`, or of a new one that ends with this process.

    Raises:
        ConnectionError: there is no cluster at `address`.
    """
    with _signal_handler_kept(signal.SIGTERM):
        if address is None:
            _start(ray)
        else:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)


def _start(ray: Any) -> None:
    # By default Ray authenticates a new cluster, with a token that it would leave in the home directory.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(
        address="local",
        namespace=NAMESPACE,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        log_to_driver=False,
        configure_logging=False,
    )


@contextlib.contextmanager
def _signal_handler_kept(number: signal.Signals) -> Iterator[None]:
    """Undo that Ray takes a signal over: what it does then is to end this process on the spot."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)
