"""Entry point of a relay process."""

import os
from collections.abc import Callable

from protos.memory import reuse_large_blocks
from workers.bootstrap import Devices, environment
from workers.main import log_to, run_until_signalled
from workers.relay.relay import Relay, RelaySettings


def run(settings: RelaySettings, announce: Callable[[str], None]) -> int:
    """Run a relay as this process's main work and return its exit code.

    The first SIGTERM or SIGINT drains the relay and its workers; the second ends the process at once.

    Args:
        settings: of this process.
        announce: called with "host:port" once workers can connect.

    Raises:
        OSError: the relay cannot listen on its address.
        TlsError: the TLS files are unusable, or missing where they are required.
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
