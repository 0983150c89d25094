"""The gRPC server of learners and relays, with a bounded thread pool, access control and TLS."""

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
        try:
            bound = self._add_port(address_of(host, port))
        except RuntimeError as error:
            raise address_in_use(self._name, host, port) from error
        if not bound:
            raise address_in_use(self._name, host, port)
        return bound

    def start(self) -> None:
        """Start serving."""
        self.server.start()

    def stop(self, grace_s: float) -> None:
        """Reject new calls, let running calls finish for up to `grace_s` seconds, and join the threads."""
        self.server.stop(grace_s).wait()
        self._pool.shutdown()

    def _add_port(self, address: str) -> int:
        if self._tls is None:
            return int(self.server.add_insecure_port(address))
        return int(self.server.add_secure_port(address, self._tls.grpc_credentials()))


def address_in_use(name: str, host: str, port: int) -> PortInUseError:
    """Return the error for an address that cannot be bound, with the remedy."""
    return PortInUseError(
        f"{name}: cannot listen on {host}:{port}; another process has the port, or this machine has no such "
        "address. Choose another port, or 0 for any that is free"
    )
