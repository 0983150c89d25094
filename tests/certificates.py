"""Certificates that tests show to each other, good ones and bad ones."""

from pathlib import Path

from protos.rpc.roles import Role, certificate_name
from service.config.certificates import make_authority, make_trial_certificates, server_name, sign


def trial_certificates(directory: Path) -> Path:
    """What `unspool certs init` makes: for localhost, and for clients of every run."""
    make_trial_certificates(directory, (), "*", 2)
    return directory


def signed(
    directory: Path, role: Role = Role.WORKER, *, run: str = "*", days: int = 2, authority: Path | None = None
) -> Path:
    """A client's folder beside those of `trial_certificates`, or by an authority of its own."""
    authority = authority or make_authority(directory.parent / f"{directory.name}-authority", 2)
    sign(authority, directory, f"URI:{certificate_name(run, role)}", "clientAuth", days)
    return directory


def served(directory: Path, *hosts: str, authority: Path, days: int = 2) -> Path:
    """A server's folder."""
    sign(authority, directory, server_name(hosts), "serverAuth", days)
    return directory
