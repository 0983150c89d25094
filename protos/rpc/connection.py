"""What both ends of a connection must agree on: sizes, how the dead are noticed, what is local."""

import ipaddress
import socket
from typing import Final

PROTOCOL: Final = 1
"""Version of the messages and their meaning; both ends of a session must speak the same."""

MESSAGE_BYTES: Final = 4 << 20
"""Nothing legal is larger: bodies travel in chunks. A guard against exhausting memory."""

SESSION_METADATA: Final = "unspool-session"
"""The header of a stream with the secret that the reply to Join contained."""

METADATA_BYTES: Final = 8 << 10
"""Headers of one call; ours are a token and a session's secret."""

CONNECTION_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # Soft and hard limit alike: between the two gRPC refuses at random.
    ("grpc.max_metadata_size", METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without this one a frozen peer is noticed after a minute, whatever the two above say.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)

SERVER_OPTIONS: Final = (
    *CONNECTION_OPTIONS,
    ("grpc.so_reuseport", 0),  # else two servers share a port silently
    # The key as it is read; the header's macro has another name, and unknown keys are ignored silently.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


def is_loopback(host: str) -> bool:
    """Whether `host` names this machine to itself only; a name other than localhost could be anybody's."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def advertised_host(host: str, advertise: str | None) -> str:
    """Return by what name others reach a server that is bound to `host`: `advertise`, if that is said."""
    if advertise:
        return advertise
    if host not in ("0.0.0.0", "::", "[::]"):
        return host
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return socket.gethostname()


def address_of(host: str, port: int) -> str:
    """Return "host:port", an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def host_of(address: str) -> str:
    """Return the host of "host:port", without the brackets of an IPv6 address."""
    return address.rpartition(":")[0].strip("[]")
