"""Certificates for trials: a certificate authority and certificates that it signs, made with `openssl`."""

import datetime
import ipaddress
import shutil
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from protos.exit_codes import FailedError, UsageError
from protos.rpc.roles import Role, certificate_name
from unspool.failure_report import last_line

_AUTHORITY: Final = "authority"
_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_AUTHORITY_EXTENSIONS: Final = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")


def make_trial_certificates(directory: Path, hosts: Iterable[str], run: str, days: int) -> dict[str, Any]:
    """Fill a new folder with the files for `tls.directory`, and with the authority that signed them.

    Args:
        directory: gets `server`, `worker`, `admin` and `viewer`, each with `ca.crt`, `tls.crt` and `tls.key`,
            and `authority`, which the run does not need.
        hosts: host names or addresses of the learner, in addition to localhost and this machine's name.
        run: the run of the clients' certificates; "*" for any.
        days: validity, also of the authority.

    Returns:
        The `directory`, the `hosts`, and the date of expiry.

    Raises:
        UsageError: `directory` is not empty, or an argument is invalid.
        FailedError: `openssl` is missing or failed.
    """
    if directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory}: is not empty; name a new folder, or remove this one")
    if days < 1:
        raise UsageError(f"--days {days}: must be at least 1")
    _make_private(directory)
    names = list(dict.fromkeys(["localhost", "127.0.0.1", "::1", socket.gethostname(), *hosts]))
    authority = make_authority(directory / _AUTHORITY, days)
    sign(authority, directory / "server", server_name(names), "serverAuth", days)
    for role in Role:
        name = f"URI:{certificate_name(run, role)}"
        sign(authority, directory / role.value, name, "clientAuth", days)
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    return {"directory": str(directory), "hosts": names, "expires": expires.date().isoformat()}


def make_authority(directory: Path, days: int) -> Path:
    """Create a self-signed authority, `tls.crt` and `tls.key` in a new folder; return the folder."""
    _make_private(directory)
    extensions = [word for one in _AUTHORITY_EXTENSIONS for word in ("-addext", one)]
    subject = ("-subj", "/CN=unspool trial authority", "-days", str(days))
    files = ("-keyout", str(directory / "tls.key"), "-out", str(directory / "tls.crt"))
    _openssl("req", "-x509", *_NEW_KEY, *subject, *extensions, *files)
    (directory / "tls.key").chmod(0o600)
    return directory


def sign(authority: Path, directory: Path, name: str, purpose: str, days: int) -> None:
    """Create a key and a certificate in a new folder, with a copy of the authority's certificate.

    Args:
        authority: its folder.
        directory: the new one.
        name: in the form of OpenSSL's `subjectAltName`: "DNS:...", "IP:...", "URI:...", separated by commas.
        purpose: `serverAuth` or `clientAuth`.
        days: until the certificate expires.
    """
    _make_private(directory)
    request, extensions = directory / "request.pem", directory / "extensions.cnf"
    lines = (f"subjectAltName={name}", f"extendedKeyUsage={purpose}", "basicConstraints=CA:FALSE")
    identifiers = ("subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid")
    extensions.write_text("\n".join((*lines, *identifiers)) + "\n")
    key = str(directory / "tls.key")
    _openssl("req", *_NEW_KEY, "-subj", f"/CN=unspool {directory.name}", "-keyout", key, "-out", str(request))
    signer = ("-CA", str(authority / "tls.crt"), "-CAkey", str(authority / "tls.key"), "-CAcreateserial")
    signed = ("-days", str(days), "-extfile", str(extensions), "-out", str(directory / "tls.crt"))
    _openssl("x509", "-req", "-in", str(request), *signer, *signed)
    (directory / "tls.key").chmod(0o600)
    shutil.copyfile(authority / "tls.crt", directory / "ca.crt")
    request.unlink()
    extensions.unlink()


def server_name(hosts: Iterable[str]) -> str:
    """Return a server's names in the form of OpenSSL's `subjectAltName`."""
    return ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _openssl(*arguments: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise FailedError(
            "certs init needs the program `openssl`, which is not on PATH; install it, or have your own "
            "authority make DIR/server, DIR/worker and DIR/admin, each with ca.crt, tls.crt and tls.key"
        )
    command = [program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise FailedError(f"openssl {arguments[0]} failed: {last_line(done.stderr) or 'without a message'}")
