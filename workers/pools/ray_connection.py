"""How this process becomes part of a Ray cluster. Only `workers.pools.ray_pool` imports `ray`."""

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
"""Where actors of all runs are; without one that is said, a later driver would not find them."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray tells of every killed worker on stdout, whatever its logging is set to; pools report it.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
}
_OBJECT_STORE_BYTES = 128 * 2**20  # no gradient passes through it; Ray's default is a third of the memory


CONNECT_S: Final = 45.0
"""How long a cluster may take to answer, or Ray to start. Ray itself tries for minutes, deaf to signals."""

_LOOK_S: Final = 0.1


def set_environment() -> None:
    """Set what Ray reads from the environment when it is imported, unless the user has said otherwise."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def connect(
    ray: Any,
    address: str | None,
    is_cancelled: Callable[[], bool] = lambda: False,
    limit_s: float = CONNECT_S,
) -> None:
    """Become a driver of the cluster at `address`, or of a new one that ends with this process.

    Ray does so in a thread of its own, so that this one stays able to react to signals. One that is given up
    goes on until the process ends, which must be soon.

    Args:
        ray: the module.
        address: of a cluster that is there, or None.
        is_cancelled: asked again and again; gives the attempt up.
        limit_s: gives it up too.

    Raises:
        ConnectionError: there is no cluster at `address`.
        TimeoutError: it has not answered, or Ray not started, within `limit_s`.
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
        threading.Event().wait()  # Linux ends the processes that Ray has started when this thread ends


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
