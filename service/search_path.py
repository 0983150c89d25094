"""Where Python looks for modules: in the current directory last, so that nothing there hides another.

It is imported before everything else, while the current directory may still come first, and so imports
only what is loaded when Python starts.
"""

import os
import sys


def put_current_directory_last() -> None:
    """Let a run's own modules be found in the current directory, but only where no other has their name.

    `python -m` and an entry of PYTHONPATH put it first: a file `logging.py` or a folder `workers` there would
    replace the module that every other one means. This program's packages are loaded from beside this one, so
    that a checkout which is the current directory runs its own code, whatever is installed.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 (no pathlib yet)
    here = _current_directory()
    others = [entry for entry in sys.path if not _is_same(entry, here)]
    sys.path[:] = [root, *others]
    from importlib import import_module  # not before: the current directory may hold a file of that name

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
