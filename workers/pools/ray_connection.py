"""Connects this process to a Ray cluster. Only `workers.pools.ray_pool` imports `ray`."""

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final

NAMESPACE = "unspool"
"""Namespace of the actors of all runs; a later driver would not find actors in an anonymous namespace."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray prints every killed worker to stdout, whatever its logging level; pools report it themselves.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
}
_OBJECT_STORE_BYTES = 128 * 2**20  # no gradient passes through it; Ray's default is a third of the memory


CONNECT_S: Final = 45.0
"""Time limit for Ray to answer or start. Ray itself tries for minutes and ignores signals."""

_LOOK_S: Final = 0.1


def set_environment() -> None:
    """Set the variables that Ray reads when it is imported, except those that the user has set."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(
    ray: Any,
    address: str | None,
    is_cancelled: Callable[[], bool] = lambda: False,
    limit_s: float = CONNECT_S,
) -> None:
    """Connect as a driver to the cluster at `address`, or to a new one that ends with this process.

    Ray connects in a separate thread, so that this one can react to signals. An abandoned attempt continues
    in its thread until the process exits, so the process should exit soon.

    Args:
        ray: the module.
        address: of a running cluster, or None.
        is_cancelled: polled; the attempt is abandoned when it returns True.
        limit_s: time limit of the attempt.

    Raises:
        ConnectionError: there is no cluster at `address`.
        TimeoutError: the cluster has not answered, or Ray not started, within `limit_s`.
        InterruptedError: the attempt was cancelled.
    """
    with _signal_handler_kept(signal.SIGTERM):
        done: Future[None] = Future()
        threading.Thread(target=_connect, args=(ray, address, done), name="ray-init", daemon=True).start()
        give_up_at = time.monotonic() + limit_s
        while not done.done():
            if is_cancelled():
                raise InterruptedError("cancelled")
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"no answer within {limit_s:.0f} s")
            time.sleep(_LOOK_S)
        done.result()


def _connect(ray: Any, address: str | None, done: Future[None]) -> None:
    try:
        if address is None:
            _start(ray)
        else:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    except BaseException as error:
        done.set_exception(error)
    else:
        done.set_result(None)
        threading.Event().wait()  # Linux kills the processes that Ray has started when this thread ends


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
    """Restore the signal handler that Ray replaces with one that exits this process immediately."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)
