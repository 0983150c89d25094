"""HTTP access control: a localhost Host header on plain loopback; otherwise the viewer role."""

from typing import Any, Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from protos.rpc.access import Access
from protos.rpc.connection import is_loopback
from protos.rpc.denials import DenialReason
from protos.rpc.roles import Role

_OPEN: Final = ("/healthz", "/readyz")
_CERTIFIED: Final = "unspool.certified"


class Guard:
    """ASGI middleware that rejects unauthorized requests and all requests with a body, without reading it."""

    def __init__(self, app: ASGIApp, access: Access, *, is_private: bool) -> None:
        """Guard an app; `is_private` if it listens on loopback without TLS."""
        self._app = app
        self._access = access
        self._is_private = is_private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        denial = self._denial(scope) if scope["type"] == "http" else None
        await (denial or self._app)(scope, receive, send)

    def _denial(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if _announces_body(headers):
            self._access.count_denial(DenialReason.TOO_LARGE, f"HTTP: {scope['path']} with a body")
            # The body stays unread, so the connection cannot be reused.
            return PlainTextResponse("requests must not have a body", 413, headers={"Connection": "close"})
        if self._is_private:
            # Prevent DNS rebinding: a web page could resolve its own host name to this address and read.
            host = _hostname(headers.get("host", ""))
            if is_loopback(host):
                return None
            self._access.count_denial(DenialReason.WRONG_HOST, f"HTTP: host {host[:100]!r}")
            return PlainTextResponse("this server accepts only the host name localhost", status_code=421)
        return None if scope["path"] in _OPEN else self._denial_of_caller(scope, headers)

    def _denial_of_caller(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        in_query = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        header = headers.get("authorization") or (f"Bearer {in_query}" if in_query else "")
        denial = self._access.check_token(header, Role.VIEWER, scope["path"])
        if denial is None and self._access.is_mutual:
            uris = scope.get(_CERTIFIED, ())
            denial = self._access.check_certificate(uris, Role.VIEWER, scope["path"])
        if denial is None:
            return None
        if not denial.is_unauthenticated:
            return PlainTextResponse(denial.text, status_code=403)
        text = f"{denial.text}; append ?token=... with its content"
        return PlainTextResponse(text, status_code=401, headers={"WWW-Authenticate": "Bearer"})


class CertifiedConnection(H11Protocol):
    """uvicorn's protocol with the URIs of the client's certificate added to the ASGI scope."""

    def connection_made(self, transport: Any) -> None:
        """Read the URIs of the certificate that TLS has verified, if any."""
        super().connection_made(transport)
        names = (transport.get_extra_info("peercert") or {}).get("subjectAltName", ())
        uris, app = tuple(name for kind, name in names if kind == "URI"), self.app

        async def certified(scope: Any, receive: Any, send: Any) -> None:
            scope[_CERTIFIED] = uris
            await app(scope, receive, send)

        self.app = certified


def _announces_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _hostname(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
