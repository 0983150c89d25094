"""The read-only HTTP server: a status page, JSON, and Prometheus metrics."""

import importlib.resources
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from learner.coordination.core import LearnerCore
from learner.servers.http_guard import CertifiedConnection, Guard
from learner.servers.metrics import RunMetrics
from learner.storage.records import Series
from protos.messages import as_dict
from protos.rpc.access import Access
from protos.rpc.connection import is_loopback
from protos.rpc.server import address_in_use
from protos.rpc.server_tls import ServerTls

_EVENTS_SHOWN: Final = 100
_JOIN_S: Final = 5.0
_HEALTH_S: Final = 5.0
_CONNECTIONS: Final = 256
_HEADER_BYTES: Final = 16 * 1024
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class HttpPlane:
    """The HTTP server, in its own thread."""

    def __init__(
        self,
        core: LearnerCore,
        series: Series,
        listening: socket.socket,
        access: Access,
        tls: ServerTls | None,
    ) -> None:
        """Serve on the socket `listening`, with access control by `access`."""
        self._core = core
        self._socket = listening
        self._metrics = RunMetrics(core.status, core.staleness_counts)
        routes = [
            Route("/", self._page),
            Route("/plotly.min.js", self._plotly),
            Route("/status.json", _as_json(lambda: as_dict(core.status()))),
            Route("/series.json", _as_json(series.columns)),
            Route("/events.json", _as_json(lambda: list(map(as_dict, core.events.latest(_EVENTS_SHOWN))))),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._prometheus),
        ]
        is_private = tls is None and is_loopback(listening.getsockname()[0])
        guard = Middleware(Guard, access=access, is_private=is_private)
        self.app = Starlette(routes=routes, middleware=[guard])
        self._server = uvicorn.Server(_configured(self.app, tls))
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="http", daemon=True
        )

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the server and its thread."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        self._socket.close()

    async def _page(self, request: Request) -> Response:
        page = importlib.resources.files("learner.servers").joinpath("page.html").read_text(encoding="utf-8")
        return HTMLResponse(page, headers=_HEADERS)

    async def _plotly(self, request: Request) -> Response:
        script = importlib.resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
        headers = {**_HEADERS, "Cache-Control": "private, max-age=86400"}
        return Response(script, media_type="text/javascript", headers=headers)

    def _healthz(self, request: Request) -> Response:
        # Not async, so Starlette runs it in a thread: waiting for the core's lock must not block the server.
        is_alive = self._core.responds(_HEALTH_S)
        return JSONResponse({"alive": is_alive}, status_code=200 if is_alive else 503)

    async def _readyz(self, request: Request) -> Response:
        reasons = self._core.not_ready()
        return JSONResponse({"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200)

    async def _prometheus(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _as_json(values: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
    """Return a handler that answers with the result of `values`."""

    async def answer(request: Request) -> Response:
        return JSONResponse(values())

    return answer


def _configured(app: Starlette, tls: ServerTls | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=CertifiedConnection,
        ws="none",
        ssl_context_factory=None if tls is None else lambda config, default: tls.http_context(),
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )


def listen(host: str, port: int) -> socket.socket:
    """Bind a port before the server starts, so that a port in use is detected early; 0 is any free port.

    Raises:
        PortInUseError: the address cannot be bound.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise address_in_use("HTTP", host, port) from error
    return listening
