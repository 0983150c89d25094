"""A gRPC server as the learner's are: bounded, guarded, alone on its port, quick to see the dead."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from learner.access_interceptor import AccessInterceptor
from learner.auth import Access
from learner.errors import PortInUseError
from learner.refusals import HANDSHAKE_S
from learner.server_tls import ServerTls
from protos.connection import SERVER_OPTIONS, address_of

_OPTIONS: Final = (
    *SERVER_OPTIONS,
    ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_S)),
)


class GrpcServer:
    """A server and its thread pool: calls beyond the pool are refused at once instead of waiting unseen."""

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
        """Take a port; returns it, which is how one learns which, if `port` is 0.

        Raises:
            PortInUseError: it is taken.
        """
        try:
            bound = self._add_port(address_of(host, port))
        except RuntimeError as error:
            raise port_in_use(self._name, host, port) from error
        if not bound:
            raise port_in_use(self._name, host, port)
        return bound

    def start(self) -> None:
        """Begin to serve."""
        self.server.start()

    def stop(self, grace_s: float) -> None:
        """Refuse new calls, give running ones `grace_s`, and join the threads."""
        self.server.stop(grace_s).wait()
        self._pool.shutdown()

    def _add_port(self, address: str) -> int:
        if self._tls is None:
            return int(self.server.add_insecure_port(address))
        return int(self.server.add_secure_port(address, self._tls.grpc_credentials()))


def port_in_use(name: str, host: str, port: int) -> PortInUseError:
    """Return the error for a port that could not be bound."""
    return PortInUseError(
        f"{name}: cannot listen on {host}:{port}; another process has the port, or this machine has no such "
        "address. Choose another port, or 0 for any that is free"
    )
