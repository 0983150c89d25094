"""Checks whether a Ray cluster answers, and whether one can be started on this machine.

Ray's own attempt to connect takes minutes if nothing answers at the address, and Python receives no signal
during that time. A child process therefore tries first, because it can be killed at any moment.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from protos.exit_codes import InterruptedRunError, LearnerUnreachableError
from protos.rpc.connection import host_of
from service.display.tables import Finding

WAIT_S = 40.0
"""Time limit for a cluster to answer."""

_CONNECT_S = 5.0
_STEP_S = 0.1
_NAMES = ("auto", "local")  # Ray looks these up; everything else is host:port
_CLIENT = "ray://"
_REFUSAL = "AuthenticationError"

# The path that Ray appends to the folder, with the longest possible pid; `raylet`'s path is shorter.
_LONGEST_TAIL: Final = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_SOCKET_PATH_LIMIT: Final = 103 if sys.platform == "darwin" else 107
_LONGEST_FOLDER: Final = _SOCKET_PATH_LIMIT - len(_LONGEST_TAIL)
_FOLDER_VARIABLES: Final = ("RAY_TMPDIR", "TMPDIR") if sys.platform.startswith("linux") else ("RAY_TMPDIR",)
_DEFAULT_FOLDER: Final = "/tmp" if sys.platform == "darwin" else tempfile.gettempdir()
_FOLDER_REMEDY: Final = "set RAY_TMPDIR to a shorter folder, such as /tmp, or use --backend local"


def await_cluster(address: str, is_interrupted: Callable[[], bool], wait_s: float = WAIT_S) -> None:
    """Return once the cluster at `address` answers.

    Args:
        address: as in `--address`.
        is_interrupted: whether this process was asked to end.
        wait_s: time limit.

    Raises:
        LearnerUnreachableError: no cluster answers within `wait_s`; the message gives the reason.
        InterruptedRunError: `is_interrupted` returned True.
    """
    if address not in _NAMES:
        _check_port(address.removeprefix(_CLIENT))
    if address.startswith(_CLIENT):
        return
    of_address = [] if address in _NAMES else ["--address", address]
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "ray.scripts.scripts", "health-check", *of_address],
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        error = _last_error(child, address, is_interrupted, time.monotonic() + wait_s)
    finally:
        child.kill()
        child.communicate()
    # A cluster that requires a token does answer; connecting will show whether this process has the token.
    if child.returncode and _REFUSAL not in error:
        raise _unreachable(address, error)


def _last_error(
    child: "subprocess.Popen[bytes]", address: str, is_interrupted: Callable[[], bool], give_up_at: float
) -> str:
    """Return the last line of `child`'s stderr, once it has ended."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, errors = child.communicate(timeout=_STEP_S)
            return (errors.decode(errors="replace").strip().splitlines() or ["without a message"])[-1]
        if is_interrupted():
            raise InterruptedRunError(f"stopped while waiting for the Ray cluster at {address}")
        if time.monotonic() > give_up_at:
            raise _unreachable(address, "the port accepts connections, but no Ray answers on it")


def _check_port(address: str) -> None:
    host, _, port = host_of(address), *address.rpartition(":")[1:]
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_S):
            pass
    except (OSError, ValueError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str, why: str) -> LearnerUnreachableError:
    return LearnerUnreachableError(
        f"--address {address}: no Ray cluster answers ({why}); start one with 'ray start --head', correct "
        "the address, or leave it out for a cluster that ends with the run"
    )


def temporary_folder(environment: Mapping[str, str] = os.environ) -> Finding:
    """Check that the folder of Ray's sockets has a short enough path."""
    variable = next((name for name in _FOLDER_VARIABLES if name in environment), "")
    folder = environment[variable] if variable else _DEFAULT_FOLDER
    length = len(os.fsencode(Path(folder).absolute()))
    text = f"{variable} = {folder}" if variable else folder
    if length > _LONGEST_FOLDER:
        rule = f"{length} bytes long, and Ray's sockets fit into folders of at most {_LONGEST_FOLDER}"
        return Finding("temporary folder", "problem", f"{text}: {rule}", _FOLDER_REMEDY)
    return Finding("temporary folder", "ok", f"{text} is short enough for Ray's sockets")
