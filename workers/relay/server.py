"""Where a relay listens: bounded, and open only to who presents the run's token for workers."""

import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from protos.rpc.connection import SERVER_OPTIONS, address_of, advertised_host, is_loopback
from protos.rpc.tls import Identity, TlsError, check_server
from protos.unspool.v1 import learner_pb2_grpc
from workers.relay.plane import RelayServicer

_SPARE_THREADS = 16
_GOODBYE_S = 3.0


class RelayServer:
    """A gRPC server of one service, alone on its port."""

    def __init__(
        self, servicer: RelayServicer, token: str, max_workers: int, identity: Identity | None
    ) -> None:
        """Prepare to serve; nothing listens before `bind`.

        Args:
            servicer: what is served.
            token: that callers have to present.
            max_workers: streams at once; each has a thread.
            identity: the relay's TLS files; used beyond loopback, where connections must be encrypted.
        """
        self._servicer = servicer
        self._identity = identity
        places = max_workers + _SPARE_THREADS
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="relay")
        self._server: Any = grpc.server(
            self._pool,
            interceptors=[_TokenInterceptor(token)],
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=places,
        )
        learner_pb2_grpc.add_LearnerServicer_to_server(servicer, self._server)

    def bind(self, host: str, port: int) -> int:
        """Take a port, any that is free if it is 0; returns it.

        Raises:
            OSError: it is taken, or this machine has no such address.
            TlsError: beyond loopback, and there are no TLS files, or workers would not accept them.
        """
        try:
            bound = int(self._add_port(address_of(host, port), host))
        except RuntimeError as error:
            raise OSError(f"relay: cannot listen on {host}:{port}: {error}") from error
        if not bound:
            raise OSError(f"relay: cannot listen on {host}:{port}")
        return bound

    def start(self) -> None:
        """Begin to serve."""
        self._server.start()

    def stop(self) -> None:
        """End every stream once it has said what it has to say, and join the threads."""
        self._server.stop(_GOODBYE_S).wait()
        self._pool.shutdown()
        self._servicer.join_readers()

    def _add_port(self, address: str, host: str) -> int:
        if is_loopback(host):
            return int(self._server.add_insecure_port(address))
        if self._identity is None:
            raise TlsError(f"relay: beyond loopback, at {host}, connections must be encrypted: name --tls")
        check_server(self._identity, advertised_host(host, None).strip("[]"))
        return int(self._server.add_secure_port(address, _renewed_credentials(self._identity)))


def _renewed_credentials(identity: Identity) -> Any:
    """Return credentials that take over files which were replaced, from the next connection on."""

    def renewed() -> Any:
        try:
            return identity.server_configuration()
        except TlsError:
            return None  # half written: those in use stay

    return grpc.dynamic_ssl_server_credentials(identity.server_configuration(), renewed)


class _TokenInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """Lets nobody in without the token, whatever kind of method is called."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Return the method's handler, or in its place one of the same kind that refuses."""
        presented = dict(handler_call_details.invocation_metadata).get("authorization", "")
        handler = continuation(handler_call_details)
        if handler is None or hmac.compare_digest(str(presented).encode(), self._expected):
            return handler
        return _refusing(handler)


def _refusing(handler: Any) -> Any:
    """Return a handler of the same kind that parses nothing and lets nobody in."""

    def refuse(_request: Any, context: Any) -> Any:
        text = "the call does not present this run's token for workers (token-worker in the run directory)"
        context.abort(grpc.StatusCode.UNAUTHENTICATED, text)

    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
    }
    return kinds[handler.request_streaming, handler.response_streaming](refuse)
