"""Published thetas: the newest, and the older ones that the replay of a lane may still need."""

import dataclasses
import hashlib
from typing import Self


@dataclasses.dataclass(frozen=True)
class Published:
    """One version of theta, as it travels.

    Attributes:
        version: outer updates behind it.
        body: its leaves' raw bytes in canonical order.
        sha256: hex digest of `body`, which is theta's.
    """

    version: int
    body: bytes
    sha256: str

    @classmethod
    def of(cls, version: int, body: bytes) -> Self:
        """Publish `body` as `version`."""
        return cls(version, body, hashlib.sha256(body).hexdigest())


class ThetaRing:
    """Consecutive versions, the newest last. Never empty."""

    def __init__(self, versions: list[Published]) -> None:
        self._versions = {published.version: published for published in versions}
        self._newest = versions[-1]

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def newest(self) -> Published:
        """The current theta."""
        return self._newest

    def get(self, version: int) -> Published | None:
        """Return a version, or None if it is not kept."""
        return self._versions.get(version)

    def publish(self, published: Published) -> None:
        """Append the next version.

        Raises:
            ValueError: it is not the next.
        """
        if published.version != self._newest.version + 1:
            raise ValueError(
                f"ThetaRing.publish({published.version}): the next is {self._newest.version + 1}"
            )
        self._versions[published.version] = published
        self._newest = published

    def trim(self, oldest: int) -> None:
        """Forget the versions before `oldest`, never the newest."""
        for version in [version for version in self._versions if version < oldest]:
            if version != self._newest.version:
                del self._versions[version]

    def versions(self) -> tuple[Published, ...]:
        """Return what is kept, oldest first."""
        return tuple(self._versions.values())
