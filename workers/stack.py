"""What every thread of this process is doing, for whoever asks from outside."""

import faulthandler
import tempfile


def dump() -> str:
    """Return every thread's stack, the innermost call first. May be called from any thread."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        return file.read()
