"""A second network on this machine: a network namespace, and a link to it that can be cut in one
direction.
"""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000


class Namespace:
    """A namespace with an address of its own, and the address of this machine within it."""

    def __init__(self) -> None:
        self.name = f"unspool-{os.getpid()}"
        self.here, self.there = "10.231.77.1", "10.231.77.2"

    def enter(self) -> None:
        """Move this process's main thread, and the threads that it starts, into the namespace."""
        with Path(f"/run/netns/{self.name}").open() as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.name}")

    @contextlib.contextmanager
    def deaf(self, end: str) -> Iterator[None]:
        """Drop all packets to `end`, "here" or "there"; the other direction is not affected."""
        # A blackhole route drops packets at the sender, without a reply.
        target, prefix = (self.here, self._inside()) if end == "here" else (self.there, [])
        _run(*prefix, "ip", "route", "add", "blackhole", f"{target}/32")
        try:
            yield
        finally:
            _run(*prefix, "ip", "route", "del", "blackhole", f"{target}/32")

    def make(self) -> None:
        """Create the namespace and its link.

        Raises:
            subprocess.CalledProcessError: the user lacks permission, or the kernel lacks support.
        """
        cable = f"uns{os.getpid() % 100000}"
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", self.name)
        _run("ip", "address", "add", f"{self.here}/30", "dev", cable)
        _run("ip", "link", "set", cable, "up")
        for words in (f"address add {self.there}/30 dev cable", "link set cable up", "link set lo up"):
            _run(*self._inside(), "ip", *words.split())

    def remove(self) -> None:
        """Remove the namespace and its link."""
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Return a namespace until the end of the block; skip the test if none can be created."""
    made = Namespace()
    try:
        made.make()
        yield made
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a network namespace needs root and iproute2: {getattr(error, 'stderr', error)}")
    finally:
        made.remove()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
