"""What both ends of a gRPC connection must agree on: the size of a message, and how the dead are noticed."""

from typing import Final

MESSAGE_BYTES: Final = 4 << 20
"""Nothing legal is larger: bodies travel in chunks. A guard against exhausting memory."""

CONNECTION_OPTIONS: Final = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without this one a frozen peer is noticed after a minute, whatever the two above say.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)
