"""Who may read over HTTP: on loopback, this machine under its own name; beyond it, whoever has the token."""

from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from learner.auth import authorized

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_OPEN: Final = ("/healthz", "/readyz")


class Guard:
    """ASGI middleware that refuses what must not be answered."""

    def __init__(self, app: ASGIApp, host: str, token: str) -> None:
        """Guard an app that is served on the address `host`."""
        self._app = app
        self._loopback = host in LOOPBACK
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if self._loopback:
            # A page elsewhere could resolve its own name to this address and read what this machine may.
            if _hostname(headers.get("host", "")) in LOOPBACK:
                return None
            return PlainTextResponse("this server answers to the name localhost only", status_code=421)
        if scope["path"] in _OPEN or self._presents_token(scope, headers):
            return None
        text = "append ?token=... with the content of the run directory's file `token`"
        return PlainTextResponse(text, status_code=401, headers={"WWW-Authenticate": "Bearer"})

    def _presents_token(self, scope: Scope, headers: Headers) -> bool:
        header = headers.get("authorization", "")
        in_query = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return authorized(header or f"Bearer {in_query}", self._token)


def _hostname(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
