"""The gRPC server of learners and relays, with a bounded thread pool, access control and TLS."""

import contextlib
import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from protos.exit_codes import PortInUseError
from protos.rpc.access import Access, AccessInterceptor
from protos.rpc.connection import SERVER_OPTIONS, address_of
from protos.rpc.denials import HANDSHAKE_S
from protos.rpc.server_tls import ServerTls

_OPTIONS: Final = (
    *SERVER_OPTIONS,
    ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_S)),
)

_TRIM_THRESHOLD: Final = -1  # parameter numbers of glibc's mallopt, as in malloc.h
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_REUSED_BYTES: Final = 128 << 20
_KEPT_BYTES: Final = 512 << 20


class GrpcServer:
    """A server with its own thread pool. Calls beyond the pool's size are rejected instead of queued."""

    def __init__(self, name: str, threads: int, access: Access, tls: ServerTls | None = None) -> None:
        self._name = name
        self._tls = tls
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.server: Any = grpc.server(
            self._pool,
            interceptors=[AccessInterceptor(access)],
            options=_OPTIONS,
            maximum_concurrent_rpcs=threads,
        )

    def bind(self, host: str, port: int) -> int:
        """Bind an address and return the port; for port 0, the system chooses a free one.

        Raises:
            PortInUseError: the port is in use, or the machine does not have the address.
        """
        address = address_of(host, port)
        try:
            if self._tls is None:
                return int(self.server.add_insecure_port(address))
            return int(self.server.add_secure_port(address, self._tls.grpc_credentials()))
        except RuntimeError as error:
            raise address_in_use(self._name, host, port) from error

    def start(self) -> None:
        """Start serving."""
        self.server.start()

    def stop(self, grace_s: float) -> None:
        """Reject new calls, let running calls finish for up to `grace_s` seconds, and join the threads."""
        self.server.stop(grace_s).wait()
        self._pool.shutdown()


def address_in_use(name: str, host: str, port: int) -> PortInUseError:
    """Return the error for an address that cannot be bound, with the remedy."""
    return PortInUseError(
        f"{name}: cannot listen on {host}:{port}; another process has the port, or this machine has no such "
        "address. Choose another port, or 0 for any that is free"
    )


def reuse_large_blocks() -> None:
    """Configure glibc to reuse large blocks instead of returning each to the system.

    By default, every large block is mapped anew, and the page faults of a 32 MiB body cost more than all its
    processing. In exchange, the process keeps up to 512 MiB of freed memory. No-op without glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _REUSED_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, 1)
