"""Connection parameters that both ends share: message sizes, keepalive, and address handling."""

import ipaddress
import socket
from typing import Final

PROTOCOL: Final = 1
"""The protocol version, which must be the same at both ends of a session."""

MESSAGE_BYTES: Final = 4 << 20
"""The maximum message size, which bounds memory use. Larger bodies are sent in chunks."""

SESSION_METADATA: Final = "unspool-session"
"""The metadata key of a stream for the secret from the Join reply."""

METADATA_BYTES: Final = 8 << 10
"""The maximum size of a call's metadata, which contains a token and a session's secret."""

CONNECTION_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # Make the soft and hard limits equal, because gRPC rejects randomly between them.
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without this option, a frozen peer is detected only after a minute, despite the two above.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)

SERVER_OPTIONS: Final = (
    *CONNECTION_OPTIONS,
    ("grpc.so_reuseport", 0),  # otherwise, two servers could silently share a port
    # gRPC reads this key, which differs from the name of the header's macro, and silently ignores others.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address or "localhost"; other names are not resolved."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def advertised_host(host: str, advertise: str | None) -> str:
    """Return the host that clients use for a server bound to `host`.

    This is `advertise` if given, else `host`, or this machine's address if `host` is a wildcard.
    """
    if advertise:
        return advertise
    if host not in ("0.0.0.0", "::", "[::]"):
        return host
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return socket.gethostname()


def address_of(host: str, port: int) -> str:
    """Return "host:port", with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def host_of(address: str) -> str:
    """Return the host of "host:port", without the brackets of an IPv6 address."""
    return address.rpartition(":")[0].strip("[]")
