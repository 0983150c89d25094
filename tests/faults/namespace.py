"""A second network on this machine: a namespace of the kernel, and a cable to it that can be cut one way."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000


class Namespace:
    """A namespace with an address of its own, and the address under which this machine is reached from it."""

    def __init__(self) -> None:
        self.name = f"unspool-{os.getpid()}"
        self.here, self.there = "10.231.77.1", "10.231.77.2"

    def enter(self) -> None:
        """Let this process's main thread, and the threads that it starts, be there."""
        with Path(f"/run/netns/{self.name}").open() as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.name}")

    @contextlib.contextmanager
    def deaf(self, end: str) -> Iterator[None]:
        """Nothing reaches `end`, "here" or "there"; the other way is as before."""
        # Dropped where it is sent: a packet for a blackhole leaves no trace.
        target, prefix = (self.here, self._inside()) if end == "here" else (self.there, [])
        _run(*prefix, "ip", "route", "add", "blackhole", f"{target}/32")
        try:
            yield
        finally:
            _run(*prefix, "ip", "route", "del", "blackhole", f"{target}/32")

    def make(self) -> None:
        """Make it, with its cable.

        Raises:
            subprocess.CalledProcessError: this user may not, or this kernel cannot.
        """
        cable = f"uns{os.getpid() % 100000}"
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "cable", "netns", self.name)
        _run("ip", "address", "add", f"{self.here}/30", "dev", cable)
        _run("ip", "link", "set", cable, "up")
        for words in (f"address add {self.there}/30 dev cable", "link set cable up", "link set lo up"):
            _run(*self._inside(), "ip", *words.split())

    def remove(self) -> None:
        """Remove it; its cable goes with it."""
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """One that is gone after the block; the test is skipped where there can be none."""
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
