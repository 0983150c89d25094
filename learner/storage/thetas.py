"""Published thetas: the newest, and older ones that the replay of a lane may need."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Self


@dataclasses.dataclass(frozen=True)
class Published:
    """One theta in serialized form.

    Attributes:
        outer_step: the number of updates that led to it.
        body: the raw bytes of its leaves in canonical order.
        sha256: the hex digest of `body`, by which a theta is identified.
    """

    outer_step: int
    body: bytes
    sha256: str

    @classmethod
    def of(cls, outer_step: int, body: bytes) -> Self:
        """Return the theta of an outer step from its `body`."""
        return cls(outer_step, body, hashlib.sha256(body).hexdigest())


class ThetaHistory:
    """Thetas of consecutive outer steps, at least one, the newest last."""

    def __init__(self, thetas: Sequence[Published]) -> None:
        self._thetas = {published.outer_step: published for published in thetas}
        self._newest = thetas[-1]

    @property
    def newest(self) -> Published:
        """The current theta."""
        return self._newest

    def get(self, outer_step: int) -> Published | None:
        """Return the theta of an outer step, or None if it is not kept."""
        return self._thetas.get(outer_step)

    def publish(self, published: Published) -> None:
        """Append the next theta.

        Raises:
            ValueError: its outer step is not the next one.
        """
        if published.outer_step != self._newest.outer_step + 1:
            raise ValueError(
                f"ThetaHistory.publish({published.outer_step}): the next is {self._newest.outer_step + 1}"
            )
        self._thetas[published.outer_step] = published
        self._newest = published

    def trim(self, oldest: int) -> None:
        """Discard the thetas before `oldest`, but never the newest."""
        oldest = min(oldest, self._newest.outer_step)
        self._thetas = {step: published for step, published in self._thetas.items() if step >= oldest}

    def kept(self) -> tuple[Published, ...]:
        """Return all kept thetas, oldest first."""
        return tuple(self._thetas.values())
