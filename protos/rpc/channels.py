"""Opening gRPC channels between the processes of a run."""

from collections.abc import Sequence
from typing import Any, Final

import grpc

from protos.rpc.connection import CONNECTION_OPTIONS
from protos.rpc.tls import Identity

_CHANNEL_OPTIONS: Final = (
    *CONNECTION_OPTIONS,
    # Without this option, gRPC routes even connections to 127.0.0.1 through `http_proxy`, `https_proxy` or
    # `grpc_proxy`. The processes of a run always connect directly.
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str, identity: Identity | None, options: Sequence[tuple[str, int]] = ()) -> Any:
    """Open a channel to `address`, ignoring proxies in the environment.

    Args:
        address: the "host:port" of a learner or relay.
        identity: this process's TLS files; None for a connection without TLS.
        options: additional gRPC channel arguments.

    Raises:
        TlsError: the TLS files cannot be used.
    """
    options = (*_CHANNEL_OPTIONS, *options)
    if identity is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, identity.channel_credentials(), options=options)
