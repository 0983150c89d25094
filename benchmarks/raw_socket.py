"""An upper bound for a connection: bytes over a loopback socket, with a reply of one byte for each body.

`python -m benchmarks.raw_socket BODY_BYTES` prints its port and serves one connection until it is closed.
"""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def raw_socket(body_bytes: int) -> Iterator[Callable[[], None]]:
    """Yields a function that sends a body to another process and waits for the reply."""
    command = [sys.executable, "-m", "benchmarks.raw_socket", str(body_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, body = int(process.stdout.readline()), bytes(body_bytes)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def push() -> None:
                connection.sendall(body)
                assert connection.recv(1) == b"k"

            yield push


def main(body_bytes: str) -> None:
    """Receives."""
    buffer = memoryview(bytearray(int(body_bytes)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while _fill(connection, buffer):
            connection.sendall(b"k")


def _fill(connection: socket.socket, buffer: memoryview) -> bool:
    received = 0
    while received < len(buffer):
        count = connection.recv_into(buffer[received:])
        if not count:
            return False
        received += count
    return True


if __name__ == "__main__":
    main(sys.argv[1])
