"""One relay process, from its settings to its exit code."""

import os
from collections.abc import Callable

from protos.memory import reuse_large_blocks
from workers.bootstrap import Devices, environment
from workers.main import log_to, run_until_signalled
from workers.relay.relay import Relay, RelaySettings


def run(settings: RelaySettings, announce: Callable[[str], None]) -> int:
    """Run a relay as this process's main work; returns its exit code.

    SIGTERM and SIGINT drain it and its workers, a second one ends the process at once.

    Args:
        settings: of this process.
        announce: told "host:port" once workers may come.

    Raises:
        OSError: it cannot listen.
        TlsError: its TLS files cannot be used, or it needs some.
    """
    from workers.session.client import LearnerClient

    for name, value in environment(Devices()).items():
        os.environ.setdefault(name, value)
    log_to(None)
    reuse_large_blocks()
    upstream = settings.upstream
    relay = Relay(settings, LearnerClient(upstream.learner, upstream.token, upstream.tls))
    announce(relay.address)
    return run_until_signalled(relay)
