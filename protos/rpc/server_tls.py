"""TLS for the learner's ports. Renewed certificate files take effect with the next connection."""

import ssl
import threading
from typing import Any, Final

import grpc

from protos.rpc.denials import DenialReason, Denials
from protos.rpc.tls import Identity, TlsError

_HTTP: Final = ["http/1.1"]


class ServerTls:
    """The TLS identity of all ports of a learner."""

    def __init__(self, identity: Identity, denials: Denials, *, is_mutual: bool) -> None:
        """Present `identity`; if `is_mutual`, clients must present a certificate of the same authority.

        Raises:
            TlsError: a file is missing or cannot be used.
        """
        self._identity = identity
        self._denials = denials
        self._is_mutual = is_mutual
        self._lock = threading.Lock()
        self._revision = identity.revision()
        self._configuration = identity.server_configuration()
        self._http = self._http_context()

    def grpc_credentials(self) -> Any:
        """Return gRPC credentials for a server."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration, self._on_handshake, require_client_authentication=self._is_mutual
        )

    def http_context(self) -> ssl.SSLContext:
        """Return the HTTP server's SSL context. Client certificates are optional: probes have none."""
        self._http.sni_callback = self._on_http_handshake
        return self._http

    def _on_handshake(self) -> Any:
        self._denials.handshake_began()
        with self._lock:
            self._renew()
            return self._configuration

    def _on_http_handshake(
        self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        with self._lock:
            self._renew()
            connection.context = self._http

    def _renew(self) -> None:
        """Load changed files; if they are only partly written, retry at the next connection."""
        try:
            revision = self._identity.revision()
            if revision != self._revision:
                self._configuration = self._identity.server_configuration()
                self._http = self._http_context()
                self._revision = revision
        except (TlsError, OSError):
            return

    def _http_context(self) -> ssl.SSLContext:
        context = self._identity.server_context(is_mutual=False)
        context.set_alpn_protocols(_HTTP)
        if self._is_mutual:
            context.verify_mode = ssl.CERT_OPTIONAL
        context.sslobject_class = _counting(self._denials)
        return context


def _counting(denials: Denials) -> type[ssl.SSLObject]:
    """Return an SSL connection class that counts failed handshakes, which asyncio does not report."""

    class CountingConnection(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLWantReadError:
                raise
            except ssl.SSLError as error:
                denials.add(DenialReason.TLS_HANDSHAKE, f"HTTP: {error}")
                raise

    return CountingConnection
