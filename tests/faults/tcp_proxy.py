"""A TCP proxy that can drop, delay, throttle and cut each direction separately."""

import contextlib
import dataclasses
import socket
import threading
import time
from typing import Final

_PIECE_BYTES: Final = 16 * 1024
_JOIN_S: Final = 10.0
_LOOK_S: Final = 0.05


class Direction:
    """The faults of one direction. Any thread may change them; changes apply to later bytes.

    Attributes:
        drops: whether bytes are read and discarded, as by a firewall that drops packets.
        delay_s: delay of each chunk in seconds.
        bytes_per_s: bandwidth limit; 0 for none.
        passed: number of bytes delivered.
    """

    def __init__(self) -> None:
        self.drops = False
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self.passed = 0

    def carry(self, piece: bytes, there: socket.socket) -> None:
        """Forward a chunk, subject to the faults."""
        wait_s = self.delay_s + (len(piece) / self.bytes_per_s if self.bytes_per_s else 0.0)
        if wait_s:
            time.sleep(wait_s)
        if not self.drops:
            there.sendall(piece)
            self.passed += len(piece)


@dataclasses.dataclass(frozen=True)
class _Connection:
    near: socket.socket
    far: socket.socket

    def cut(self) -> None:
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class TcpProxy:
    """A proxy of connections to `target`, until the end of the block.

    Attributes:
        upwards: from the clients to the target.
        downwards: from the target to the clients.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.upwards, self.downwards = Direction(), Direction()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_LOOK_S)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[_Connection] = []
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._closed = threading.Event()

    def __enter__(self) -> "TcpProxy":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._threads[0].join(_JOIN_S)
        self.cut()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._listener.close()

    def cut(self) -> None:
        """Close every connection; new ones are accepted."""
        for connection in self._connections:
            connection.cut()
        self._connections.clear()

    def partition(self) -> None:
        """Silently drop all bytes in both directions."""
        self.upwards.drops = self.downwards.drops = True

    def heal(self) -> None:
        """Forward new connections again. Existing ones are cut, because they have lost unacknowledged
        bytes.
        """
        self.upwards.drops = self.downwards.drops = False
        self.cut()

    def _accept(self) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(TimeoutError, ConnectionError):
                near, _ = self._listener.accept()
                near.settimeout(None)
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, timeout=1.0)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        connection = _Connection(near, far)
        self._connections.append(connection)
        for here, there, direction in ((near, far, self.upwards), (far, near, self.downwards)):
            arguments = (connection, here, there, direction)
            self._threads.append(threading.Thread(target=self._pass_on, args=arguments, daemon=True))
            self._threads[-1].start()

    def _pass_on(
        self, connection: _Connection, here: socket.socket, there: socket.socket, direction: Direction
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := here.recv(_PIECE_BYTES):
                direction.carry(piece, there)
        connection.cut()
        here.close()
