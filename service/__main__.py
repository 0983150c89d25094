"""The program `unspool`, which is also `python -m service`."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # gRPC reads it when it is imported, and would otherwise report every refused connection by itself.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with contextlib.suppress(FileNotFoundError):  # the folder that this process is in has been removed
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)  # as `python -m` does: a run's own code may lie here
    from service.standard_streams import mend_standard_streams

    mend_standard_streams()  # before anything opens a file
    from service.command import run_command

    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
