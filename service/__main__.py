"""The program `unspool`, which is also `python -m service`."""

import os
import sys


def _prepare_search_path() -> None:
    """Put the current directory last on it, before any other import: what lies there must not pass for ours.

    Our own processes run this file by its path, with `python -P`, so that they find the same code.
    """
    path = sys.path[:]
    sys.path[:] = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]  # noqa: PTH100, PTH120
    from service.search_path import put_current_directory_last

    sys.path[:] = path
    put_current_directory_last()


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    _prepare_search_path()
    arguments = sys.argv[1:] if arguments is None else arguments
    # gRPC reads it when it is imported, and would otherwise report every refused connection by itself.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from service.standard_streams import mend_standard_streams

    mend_standard_streams()  # before anything opens a file
    from service.command import run_command

    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
