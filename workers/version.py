"""Which code this process runs, as it tells the learner."""

import importlib.metadata


def client_version() -> str:
    """Return the installed version of unspool."""
    try:
        return importlib.metadata.version("unspool")
    except importlib.metadata.PackageNotFoundError:
        return "checkout"  # as uploaded by `ray job submit --working-dir .`: nothing is installed
