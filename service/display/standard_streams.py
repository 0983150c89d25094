"""Repairs standard input, output and error that are closed or not UTF-8."""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Final

from service.system_errors import naming

_STREAMS: Final = (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w"))
_DEGRADE: Final = "unspool-degrade"
_PLAIN: Final = {
    **dict.fromkeys("─━╌╍═", "-"),
    **dict.fromkeys("│┃╎╏║", "|"),
    "±": "+-",
    "…": "...",
    "•": "*",
    "µ": "u",
}
_BOX_DRAWING: Final = range(0x2500, 0x2580)
_ESCAPED_BYTES: Final = range(0xDC80, 0xDD00)


def repair_standard_streams() -> None:
    """Open closed streams on the null device, and replace characters that a stream cannot encode.

    A free descriptor below 3 would be assigned to the next opened file or socket, and a child process or a
    stray `print` would then write into that.
    """
    codecs.register_error(_DEGRADE, _degraded)
    for name, descriptor, mode in _STREAMS:
        _occupy(descriptor)
        stream = getattr(sys, name)
        if stream is None:
            stream = os.fdopen(descriptor, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper) and mode == "w":
            stream.reconfigure(errors=_DEGRADE)


@contextlib.contextmanager
def writing_output() -> Iterator[None]:
    """Run a block that writes to standard output, and name it in errors.

    After an error, buffered output is discarded: otherwise the interpreter would fail on it again at exit.

    Raises:
        BrokenPipeError: the reader has closed standard output.
        OSError: standard output cannot be written to.
    """
    try:
        with naming("standard output"):
            yield
    except OSError:
        _discard_output()
        raise


def _discard_output() -> None:
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _occupy(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        os.dup2(opened, descriptor)  # children inherit it
        if opened != descriptor:
            os.close(opened)
        else:
            os.set_inheritable(descriptor, True)


def _degraded(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace a character that cannot be encoded by a similar one, or by its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, after = error.object[error.start], error.start + 1
    code = ord(character)
    if code in _ESCAPED_BYTES:  # part of an undecodable path; restore the original byte
        return bytes([code - 0xDC00]), after
    if character in _PLAIN:
        return _PLAIN[character], after
    if code in _BOX_DRAWING:
        return "+", after
    return character.encode("ascii", "backslashreplace").decode("ascii"), after
