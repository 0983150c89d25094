"""The tables `[learner]` and `[tls]`: the learner's addresses and the encryption of connections."""

import dataclasses
from pathlib import Path
from typing import Literal

from learner.tables import require
from protos.rpc.connection import is_loopback
from protos.rpc.roles import Role
from protos.rpc.tls import Identity
from unspool.config.config_error import ConfigError, Problem
from unspool.config.toml_values import as_toml

_ANY_PORT = range(65536)


@dataclasses.dataclass(frozen=True)
class ListenTable:
    """The addresses that the learner listens on; port 0 selects any free port.

    Attributes:
        host: the address to bind. An address beyond loopback requires TLS.
        advertise: the name or address that clients use and certificates contain; None for `host`, or for
            this machine's own address if `host` is a wildcard.
        insecure: allow connections beyond loopback without TLS, on a trusted network.
        port: the port of the data plane, for workers.
        admin_port: the port of the admin server, for `unspool`.
        http_port: the port of the status page.
    """

    host: str = "127.0.0.1"
    advertise: str | None = None
    insecure: bool = False
    port: int = 0
    admin_port: int = 0
    http_port: int = 0

    def __post_init__(self) -> None:
        ports = {"port": self.port, "admin_port": self.admin_port, "http_port": self.http_port}
        chosen = [port for port in ports.values() if port]
        require(
            "learner",
            self,
            ("host", bool(self.host), "must not be empty"),
            ("advertise", self.advertise != "", "must not be empty"),
            (
                "advertise",
                ":" not in (self.advertise or ""),
                "must be a name or an IPv4 address, without a port",
            ),
            *((name, port in _ANY_PORT, "must be from 0 to 65535") for name, port in ports.items()),
            *((name, chosen.count(port) <= 1, "is used twice") for name, port in ports.items()),
        )


@dataclasses.dataclass(frozen=True)
class TlsTable:
    """The encryption of connections.

    Attributes:
        directory: a directory with a folder for each party, `server`, `worker` and `admin`, each with
            `ca.crt`, `tls.crt` and `tls.key` as in a Kubernetes TLS secret; None for unencrypted connections.
        mutual: whether clients must present certificates too, with a URI `unspool://RUN/ROLE`.
    """

    directory: str | None = None
    mutual: bool = False

    def __post_init__(self) -> None:
        require(
            "tls",
            self,
            ("directory", self.directory != "", "must not be empty"),
            ("mutual", not self.mutual or self.directory is not None, "needs tls.directory"),
        )

    def settled(self) -> "TlsTable":
        """Return a copy with an absolute path, which stays valid if the run is resumed from elsewhere."""
        if self.directory is None:
            return self
        return dataclasses.replace(self, directory=str(Path(self.directory).expanduser().absolute()))

    @property
    def server(self) -> Identity | None:
        """The learner's TLS files."""
        return self.of("server")

    def of(self, party: Role | Literal["server"]) -> Identity | None:
        """Return the TLS files of the learner's servers, or of clients in a role; None without TLS."""
        return None if self.directory is None else Identity(Path(self.directory) / party)


def check_exposure(learner: ListenTable, tls: TlsTable) -> None:
    """Check that connections beyond loopback are encrypted, unless `insecure` is set.

    Raises:
        ConfigError: they are not; the error contains the remedies.
    """
    if is_loopback(learner.host) or tls.directory is not None or learner.insecure:
        return
    rule = "beyond loopback connections must be encrypted"
    remedy = (
        "set tls.directory (`unspool certs init DIR` makes certificates for trials), or learner.insecure = "
        "true on a network that nobody else can listen on"
    )
    raise ConfigError(Problem("learner.host", as_toml(learner.host), rule, remedy))
