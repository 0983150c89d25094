"""What `unspool doctor` finds."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: in a word or two.
        state: "problem" is what will not work, "warning" what may not.
        said: what was found.
        remedy: what to do about it; empty where all is well.
    """

    about: str
    state: Literal["ok", "warning", "problem"]
    said: str
    remedy: str = ""
