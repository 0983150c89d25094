"""Valid and invalid certificates for tests."""

from pathlib import Path

from protos.rpc.roles import Role, certificate_name
from service.config.certificates import make_authority, make_trial_certificates, server_name, sign


def trial_certificates(directory: Path) -> Path:
    """Create the certificates of `unspool certs init`: for localhost, and for clients of every run."""
    make_trial_certificates(directory, (), "*", 2)
    return directory


def signed(
    directory: Path, role: Role = Role.WORKER, *, run: str = "*", days: int = 2, authority: Path | None = None
) -> Path:
    """Create a client's folder, signed by `authority` or by a new authority."""
    authority = authority or make_authority(directory.parent / f"{directory.name}-authority", 2)
    sign(authority, directory, f"URI:{certificate_name(run, role)}", "clientAuth", days)
    return directory


def served(directory: Path, *hosts: str, authority: Path, days: int = 2) -> Path:
    """Create a server's folder."""
    sign(authority, directory, server_name(hosts), "serverAuth", days)
    return directory
