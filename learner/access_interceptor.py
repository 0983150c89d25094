"""Every gRPC call passes here, before its request is parsed."""

from collections.abc import Callable
from typing import Any, Final

import grpc

from learner.auth import Access, Refusal
from protos.roles import needed_role

_OPEN: Final = frozenset({"/grpc.health.v1.Health/Check"})
_URIS: Final = "peer_uri"


class AccessInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc ships no types
    """Puts every call, of whatever kind, before the judge; health checks are open."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Return the method's handler behind a guard of the same kind."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        header = dict(handler_call_details.invocation_metadata).get("authorization", "")
        refusal = None
        if method not in _OPEN:
            refusal = self._access.refusal_of_token(header, needed_role(method), method)
        if handler is None and refusal is None:
            return None  # gRPC says that there is no such method

        def guard(context: Any) -> None:
            self._access.called(context.peer())
            verdict = refusal or self._refusal_of_certificate(context, method)
            if verdict is not None:
                context.abort(verdict.status, verdict.text)

        return _guarded(handler, guard, is_parsed=refusal is None)

    def _refusal_of_certificate(self, context: Any, method: str) -> Refusal | None:
        if not self._access.is_mutual or method in _OPEN:
            return None
        uris = [uri.decode(errors="replace") for uri in context.auth_context().get(_URIS, ())]
        return self._access.refusal_of_certificate(uris, needed_role(method), method)


def _guarded(handler: Any, guard: Callable[[Any], None], *, is_parsed: bool) -> Any:
    """Return a handler of the same kind as `handler` that asks `guard` first; None counts as unary.

    Of a caller that is refused already, not even the request is parsed.
    """
    if handler is None:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: guard(context))
    kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
    behaviour = getattr(handler, kind)

    def answer(request: Any, context: Any) -> Any:
        guard(context)
        return behaviour(request, context)

    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(answer, handler.request_deserializer if is_parsed else None, handler.response_serializer)


def _arity(is_streaming: bool) -> str:
    return "stream" if is_streaming else "unary"
