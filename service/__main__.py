"""The program `unspool`, which is also `python -m service`.

Processes of this program run this file by its path, with `python -P`, so that they find the same code. While
it is imported the current directory may still come first, and so it imports only what is loaded when Python
starts.
"""

import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    put_current_directory_last()  # before any other import: a module there must not shadow this program's
    arguments = sys.argv[1:] if arguments is None else arguments
    # gRPC reads this when it is imported, and would otherwise log every refused connection itself.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from service.display.standard_streams import repair_standard_streams

    repair_standard_streams()  # before anything opens a file
    from service.commands.command import run_command

    return run_command(arguments)


def put_current_directory_last() -> None:
    """Move the current directory to the end of the search path, where a run's own modules are still found.

    `python -m` and an entry of PYTHONPATH put it first: a file `logging.py` or a folder `workers` there would
    shadow the real module. This program's packages are loaded from the folder of this file, so that a
    checkout in the current directory runs its own code, whatever is installed.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 (no pathlib yet)
    here = _current_directory()
    others = [entry for entry in sys.path if not _is_same(entry, here)]
    sys.path[:] = [root, *others]
    from importlib import import_module  # not earlier: the current directory may contain a file of that name

    from unspool.config.hidden_module import PACKAGES, reserve_standard_names

    for package in PACKAGES:
        import_module(package)
    sys.path[:] = [*others, *[root] * (root not in others and root != here)]
    if here:
        reserve_standard_names(here)
        sys.path.append(here)


def _current_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return ""  # it was removed


def _is_same(entry: str, here: str) -> bool:
    is_standard_library = entry == os.path.dirname(os.__file__)  # noqa: PTH120
    return bool(here) and not is_standard_library and os.path.realpath(entry) == os.path.realpath(here)


if __name__ == "__main__":
    sys.exit(main())
