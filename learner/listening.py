"""Where the learner listens, and how connections are encrypted: the tables `[learner]` and `[tls]`."""

import dataclasses
from pathlib import Path

from learner.tables import require
from protos.rpc.connection import is_loopback
from protos.rpc.roles import Role
from protos.rpc.tls import Identity
from unspool.config.config_error import ConfigError, Problem
from unspool.config.toml_values import as_toml

_ANY_PORT = range(65536)


@dataclasses.dataclass(frozen=True)
class ListenTable:
    """Where the process that holds theta listens; port 0 takes any free one.

    Attributes:
        host: address to bind. Beyond loopback it needs TLS.
        advertise: the name or address by which others reach it, which certificates are for; None: `host`, or
            what this machine calls itself where that is every address.
        insecure: allow connections beyond loopback without TLS, on a trusted network.
        port: of the data plane, for workers.
        admin_port: of the admin server, for `unspool`.
        http_port: of the status page.
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
    """How connections are encrypted.

    Attributes:
        directory: holds a folder for each party, `server`, `worker` and `admin`, each with `ca.crt`,
            `tls.crt` and `tls.key`, as a Kubernetes TLS secret has them; None: connections are not encrypted.
        mutual: whether workers and operators must show certificates too, named `unspool://RUN/ROLE`.
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
        """Return the same with a path that means the same wherever the run is resumed from."""
        if self.directory is None:
            return self
        return dataclasses.replace(self, directory=str(Path(self.directory).expanduser().absolute()))

    @property
    def server(self) -> Identity | None:
        """The learner's files."""
        return self._identity("server")

    def of(self, role: Role) -> Identity | None:
        """Return the files of those who call the learner in a role."""
        return self._identity(role.value)

    def _identity(self, name: str) -> Identity | None:
        return None if self.directory is None else Identity(Path(self.directory) / name)


def check_exposure(learner: ListenTable, tls: TlsTable) -> None:
    """Refuse to send tokens and gradients over a network without encryption, unless that was asked for.

    Raises:
        ConfigError: naming the remedies.
    """
    if is_loopback(learner.host) or tls.directory is not None or learner.insecure:
        return
    rule = "beyond loopback connections must be encrypted"
    remedy = (
        "set tls.directory (`unspool certs init DIR` makes certificates for trials), or learner.insecure = "
        "true on a network that nobody else can listen on"
    )
    raise ConfigError(Problem("learner.host", as_toml(learner.host), rule, remedy))
