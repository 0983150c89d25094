"""TLS identities from files, and diagnosis of failing handshakes.

gRPC reports only that a connection was closed. So handshakes are tried with Python's own TLS, which reports
what is wrong with a certificate: against the other end, or in memory if the other end would not reveal it.
"""

import contextlib
import math
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from protos.rpc.connection import host_of

_PROBE_S: Final = 5.0
_FLIGHTS: Final = 8  # more rounds of messages than any TLS handshake needs
_H2: Final = ["h2"]


class TlsError(Exception):
    """Raised if an identity's files cannot be used, or if the other end would reject them."""


@dataclass(frozen=True)
class Identity:
    """The files of one party, named as in a Kubernetes TLS secret.

    Attributes:
        directory: contains `ca.crt`, the trusted authorities, and `tls.crt` and `tls.key`, the party's own
            certificate and key. A client that needs no certificate can omit these two.
    """

    directory: Path

    @property
    def authority(self) -> Path:
        """The file with the certificates of the trusted authorities."""
        return self.directory / "ca.crt"

    @property
    def certificate(self) -> Path:
        """The file with the party's certificate and any intermediate certificates."""
        return self.directory / "tls.crt"

    @property
    def key(self) -> Path:
        """The file with the certificate's private key."""
        return self.directory / "tls.key"

    @property
    def has_certificate(self) -> bool:
        """Whether the party has a certificate."""
        return self.certificate.exists()

    def revision(self) -> tuple[int, ...]:
        """Return a value that changes when the files are replaced, as on renewal of a certificate."""
        numbers: list[int] = []
        for path in (self.authority, self.certificate, self.key):
            with contextlib.suppress(OSError):  # files may be missing, permanently or during a renewal
                found = path.stat()
                numbers += (found.st_mtime_ns, found.st_ino)
        return tuple(numbers)

    def channel_credentials(self) -> Any:
        """Return gRPC credentials for a client.

        Raises:
            TlsError: a file is missing or cannot be used.
        """
        self.client_context()
        key, certificate = (
            (_read(self.key), _read(self.certificate)) if self.has_certificate else (None, None)
        )
        return grpc.ssl_channel_credentials(_read(self.authority), key, certificate)

    def server_configuration(self) -> Any:
        """Return gRPC's certificate configuration for a server.

        Raises:
            TlsError: a file is missing or cannot be used.
        """
        self.server_context(is_mutual=False)
        pairs = [(_read(self.key), _read(self.certificate))]
        return grpc.ssl_server_certificate_configuration(pairs, _read(self.authority))

    def client_context(self) -> ssl.SSLContext:
        """Return a Python SSL context for a client, which checks the server's name.

        Raises:
            TlsError: a file is missing or cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._load(context, with_certificate=self.has_certificate)
        return context

    def server_context(self, *, is_mutual: bool) -> ssl.SSLContext:
        """Return a Python SSL context for a server.

        Raises:
            TlsError: a file is missing or cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED if is_mutual else ssl.CERT_NONE
        self._load(context, with_certificate=True)
        return context

    def _load(self, context: ssl.SSLContext, *, with_certificate: bool) -> None:
        path = self.authority
        try:
            context.load_verify_locations(path)
            if with_certificate:
                path = self.certificate
                context.load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise TlsError(f"{path}: cannot be used: {error.reason or error}") from error
        except OSError as error:
            raise TlsError(f"{path}: cannot be read, or the key beside it ({error.strerror})") from error


def check_server(identity: Identity, host: str) -> float:
    """Check that clients which connect to `host` would accept a server with these files.

    Returns:
        The expiry time of the certificate, in seconds of Unix time.

    Raises:
        TlsError: they would not; the reason is an expired certificate or a wrong name, authority or key.
    """
    server, client = identity.server_context(is_mutual=False), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(identity.authority)
    at_client, _ = _rehearse(server, client, host, identity)
    return _expiry(at_client)


def check_client(identity: Identity) -> float:
    """Check that a server which trusts the same authority would accept a client with these files.

    Returns:
        The expiry time of the certificate, in seconds of Unix time; inf if there is no certificate.

    Raises:
        TlsError: it would not; the error contains the reason.
    """
    client = identity.client_context()
    if not identity.has_certificate:
        return math.inf
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    _, at_server = _rehearse(identity.server_context(is_mutual=True), client, None, identity)
    return _expiry(at_server)


def handshake_problem(address: str, identity: Identity | None) -> str:
    """Return why the TLS handshake of clients with these files fails at `address`, "host:port".

    Empty if the handshake succeeds, or if the server cannot be reached, which is not a TLS problem.
    """
    try:
        if identity is not None:
            check_client(identity)
        return _problem_on_the_wire(address, identity)
    except TlsError as error:
        return str(error)


def _rehearse(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str | None, about: Identity
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Perform a TLS handshake in memory; return the client's and the server's ends."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for _ in range(_FLIGHTS):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
    except ssl.SSLError as error:
        raise TlsError(f"{about.certificate}: {_in_words(error)}") from error
    return ends


def _expiry(end: ssl.SSLObject) -> float:
    """Return when the other end's certificate expires, in seconds of Unix time; inf if it has none."""
    shown = end.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"]))) if "notAfter" in shown else math.inf


def _problem_on_the_wire(address: str, identity: Identity | None) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if identity is None else identity.client_context()
    if identity is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(_H2)
    host, port = host_of(address), int(address.rpartition(":")[2])
    try:
        with (
            socket.create_connection((host, port), timeout=_PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            if identity is None:
                return "it speaks TLS, and no folder with the certificate of its authority was named"
            # In TLS 1.3, a server rejects the client's certificate only after the client's handshake is done.
            return "" if connection.recv(1) else _UNWANTED
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {_in_words(error)}"
    except ConnectionResetError:
        return _UNWANTED if identity is not None else ""
    except ssl.SSLError as error:
        return "" if identity is None else f"no TLS handshake with it: {_in_words(error)}"
    except OSError:
        return ""


_UNWANTED: Final = "it ended the TLS handshake: it wants a client certificate that its authority has signed"


def _in_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS"
    return (error.reason or str(error)).replace("_", " ").lower()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path}: cannot be read ({error.strerror})") from error
