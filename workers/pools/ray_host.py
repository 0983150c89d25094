"""The class that Ray runs in an actor: it corrects the module search path before it imports the worker.

Ray puts the driver's current directory, or a job's working directory, first on the search path of its
processes. A file `workers.py` there would shadow this program's package.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

DriverSearch: TypeAlias = tuple[str, bool]
"""The driver's current directory, and whether the driver's code comes from there."""


def driver_search() -> DriverSearch:
    """Return what an actor needs to know of this process, its driver."""
    here = Path.cwd()
    return str(here), Path(__file__).resolve().parents[2] == here.resolve()


def _path_setter() -> Callable[[DriverSearch], None]:
    """Return a function that Ray pickles by value, because it is defined inside a function."""

    def put_users_last(search: DriverSearch) -> None:
        import os
        import sys

        directory, is_own_code = search
        users = list(dict.fromkeys((os.getcwd(), directory)))  # noqa: PTH109
        last = {os.path.realpath(one) for one in users}
        others = [entry for entry in sys.path if os.path.realpath(entry) not in last]
        # A job that brings a checkout of this program runs that checkout, whatever is installed on the node.
        own = [one for one in users if is_own_code and os.path.isfile(f"{one}/workers/pools/ray_host.py")]  # noqa: PTH113
        sys.path[:] = [*own, *others, *users]
        from importlib import import_module

        ours = import_module("unspool.config.hidden_module")
        for package in ours.PACKAGES:
            import_module(package)
        sys.path[:] = others
        for one in users:
            ours.reserve_standard_names(one)
        sys.path += users

    return put_users_last


def host_class() -> type[Any]:
    """Return a class that Ray also pickles by value instead of importing it by name.

    It imports nothing of this program until its constructor has corrected the search path.
    """
    put_users_last = _path_setter()

    class ActorHost:
        """Holds the hosted object and forwards the calls of `workers.pools.actor.WorkerActor` to it."""

        def __init__(self, search: DriverSearch, place: tuple[str, str], *arguments: str) -> None:
            """Construct the class `place` (module, name) with `arguments`."""
            put_users_last(search)
            from importlib import import_module

            module, name = place
            self._hosted = getattr(import_module(module), name)(*arguments)

        def run(self) -> Any:
            return self._hosted.run()

        def outcome(self, timeout_s: float) -> Any:
            return self._hosted.outcome(timeout_s)

        def location(self) -> Any:
            return self._hosted.location()

        def drain(self, reason: str) -> None:
            self._hosted.drain(reason)

        def stack(self) -> Any:
            return self._hosted.stack()

    return ActorHost
