"""Whether Ray's sockets fit into the temporary folder: the system limits the length of a socket's path."""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from protos.exit_codes import UsageError
from service.finding import Finding

# What Ray appends to the folder, with the longest process number; `raylet`'s path is shorter.
_LONGEST_TAIL: Final = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_LIMIT: Final = 103 if sys.platform == "darwin" else 107
_FITS: Final = _LIMIT - len(_LONGEST_TAIL)
_VARIABLES: Final = ("RAY_TMPDIR", "TMPDIR") if sys.platform.startswith("linux") else ("RAY_TMPDIR",)
_DEFAULT: Final = "/tmp" if sys.platform == "darwin" else tempfile.gettempdir()
_REMEDY: Final = "set RAY_TMPDIR to a shorter folder, such as /tmp, or use --backend local"


def temporary_folder(environment: Mapping[str, str] = os.environ) -> Finding:
    """Judge the folder in which a Ray that is started here would make its sockets."""
    variable = next((name for name in _VARIABLES if name in environment), "")
    folder = environment[variable] if variable else _DEFAULT
    length = len(os.fsencode(Path(folder).absolute()))
    said = f"{variable} = {folder}" if variable else folder
    if length > _FITS:
        rule = f"{length} bytes long, and Ray's sockets fit into folders of at most {_FITS}"
        return Finding("temporary folder", "problem", f"{said}: {rule}", _REMEDY)
    return Finding("temporary folder", "ok", f"{said} is short enough for Ray's sockets")


def check_temporary_folder() -> None:
    """Refuse to start Ray where it would fail.

    Raises:
        UsageError: naming the variable, the length, the limit and the remedy.
    """
    finding = temporary_folder()
    if finding.state == "problem":
        raise UsageError(f"{finding.said}; {finding.remedy}")
