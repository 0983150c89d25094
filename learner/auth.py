"""Who may call: one interceptor for every method of a server."""

import hmac
from collections.abc import Callable
from typing import Any, Final

import grpc

_OPEN: Final = frozenset({"/grpc.health.v1.Health/Check"})
_SCHEME: Final = "Bearer "


def authorized(header: str, token: str) -> bool:
    """Whether an `Authorization` header presents the token; how wrong it is does not change the time."""
    presented = header.removeprefix(_SCHEME) if header.startswith(_SCHEME) else ""
    return hmac.compare_digest(presented.encode(), token.encode())


class TokenInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """Refuses every call, of whatever kind, that does not present the run's token; health checks are open."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Return the method's handler, or one of the same kind that refuses."""
        handler = continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata)
        if handler_call_details.method in _OPEN or authorized(metadata.get("authorization", ""), self._token):
            return handler
        return _refusal_like(handler)


def _refusal_like(handler: Any) -> Any:
    """Return a handler of the same kind as `handler`: gRPC calls them differently. None counts as unary."""
    if handler is None:
        return grpc.unary_unary_rpc_method_handler(_refuse)
    if handler.request_streaming:
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
    else:
        make = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
    return make(_refuse, handler.request_deserializer, handler.response_serializer)


def _refuse(_request: Any, context: Any) -> None:
    context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "the call does not present this run's token; it is in the run directory, in the file `token`",
    )
