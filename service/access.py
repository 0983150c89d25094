"""What this process shows to a learner: the run's own token and certificate, or those that its user has."""

import os
from pathlib import Path

from protos.rpc.roles import Role
from protos.rpc.tls import Identity
from service.config import RunConfig
from service.run_directory import Endpoints, RunDirectory, read_token
from service.toml_document import read_tables

TOKEN_FILE = "UNSPOOL_TOKEN_FILE"  # a variable's name
"""Names a file with a token: of somebody who may not read the run's, or is to do less than its owner may."""

TLS_DIRECTORY = "UNSPOOL_TLS"
"""Names a folder with `ca.crt`, `tls.crt` and `tls.key`."""


def token_file() -> Path | None:
    """Return the file that the environment names, or None."""
    path = os.environ.get(TOKEN_FILE)
    return Path(path) if path else None


def tls_directory() -> Path | None:
    """Return the folder that the environment names, or None."""
    path = os.environ.get(TLS_DIRECTORY)
    return Path(path) if path else None


def operators_token(run: RunDirectory) -> str:
    """Return the token that commands present.

    Raises:
        RunNotFoundError: it cannot be read.
    """
    path = token_file()
    return run.token() if path is None else read_token(path)


def operators_identity(run: RunDirectory, endpoints: Endpoints) -> Identity | None:
    """Return the files that commands use, None where nothing is encrypted."""
    if not endpoints.tls:
        return None
    directory = tls_directory()
    if directory is not None:
        return Identity(directory)
    return RunConfig.from_tables(read_tables(run.config_path)).tls.of(Role.ADMIN)
