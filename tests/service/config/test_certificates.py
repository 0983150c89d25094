"""`unspool certs init`: what it makes is what TLS accepts, and what is wrong with other files is said."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from protos.exit_codes import ExitCode, FailedError, LearnerUnreachableError, RefusedError, UsageError
from protos.rpc.roles import Role, certificate_name
from protos.rpc.tls import Identity, TlsError, check_client, check_server, handshake_problem
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc
from service.commands.command import run_command
from service.config.certificates import make_trial_certificates
from service.run.client import AdminClient
from tests.certificates import served, signed, trial_certificates


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial_certificates(tmp_path_factory.mktemp("certificates") / "trial")


def without_certificate(trial: Path, directory: Path) -> Identity:
    directory.mkdir()
    (directory / "ca.crt").write_bytes((trial / "admin" / "ca.crt").read_bytes())
    return Identity(directory)


def test_a_trial_has_all_that_tls_directory_wants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["certs", "init", str(tmp_path / "tls"), "--host", "learner.example", "--host", "10.0.0.5"]
    assert run_command([*arguments, "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["hosts"][-2:] == ["learner.example", "10.0.0.5"]
    for host in ("localhost", "127.0.0.1", "learner.example", "10.0.0.5"):
        check_server(Identity(tmp_path / "tls" / "server"), host)
    for role in Role:
        check_client(Identity(tmp_path / "tls" / role))


@pytest.mark.parametrize("role", Role)
def test_a_clients_certificate_says_its_run_and_role(tmp_path: Path, role: Role) -> None:
    make_trial_certificates(tmp_path / "tls", (), "digits-1", 2)
    shown = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "tls" / role / "tls.crt", "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"URI:{certificate_name('digits-1', role)}" in shown.stdout


def test_private_keys_are_private(trial: Path) -> None:
    keys = sorted(trial.glob("*/tls.key"))
    assert len(keys) == 2 + len(Role)
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert {key.parent.stat().st_mode & 0o777 for key in keys} == {0o700}


def test_nothing_is_written_over(trial: Path) -> None:
    with pytest.raises(UsageError, match="is not empty; name a new folder"):
        make_trial_certificates(trial, (), "*", 2)


@pytest.mark.parametrize("days", [0, -1])
def test_certificates_that_have_expired_are_not_made(tmp_path: Path, days: int) -> None:
    with pytest.raises(UsageError, match=f"--days {days}: must be at least 1"):
        make_trial_certificates(tmp_path / "tls", (), "*", days)


def test_a_name_that_openssl_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="openssl x509 failed: "):
        make_trial_certificates(tmp_path / "tls", ("a,b:c",), "*", 2)


def test_without_openssl_the_files_to_bring_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FailedError, match=r"not on PATH; .*DIR/server, DIR/worker and DIR/admin"):
        make_trial_certificates(tmp_path / "tls", (), "*", 2)


@pytest.mark.parametrize(
    ("hosts", "days", "words"),
    [
        (("elsewhere.example",), 2, "not valid for 'localhost'"),
        (("localhost",), -1, "certificate has expired"),
    ],
)
def test_what_is_wrong_with_a_servers_certificate_is_said(
    tmp_path: Path, trial: Path, hosts: tuple[str, ...], days: int, words: str
) -> None:
    files = served(tmp_path / "server", *hosts, authority=trial / "authority", days=days)
    with pytest.raises(TlsError, match=words):
        check_server(Identity(files), "localhost")


def test_an_expired_client_certificate_is_named(tmp_path: Path, trial: Path) -> None:
    files = signed(tmp_path / "old", days=-1, authority=trial / "authority")
    with pytest.raises(TlsError, match=rf"{files / 'tls.crt'}: certificate has expired"):
        check_client(Identity(files))


@pytest.mark.parametrize("name", ["ca.crt", "tls.crt", "tls.key"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, trial: Path, name: str, content: str | None
) -> None:
    files = signed(tmp_path / "files", authority=trial / "authority")
    (files / name).unlink() if content is None else (files / name).write_text(content)
    with pytest.raises(TlsError, match=str(files)):
        Identity(files).server_configuration()


def test_a_key_of_another_certificate_is_refused(tmp_path: Path, trial: Path) -> None:
    files = signed(tmp_path / "files", authority=trial / "authority")
    (files / "tls.key").write_bytes((trial / "admin" / "tls.key").read_bytes())
    with pytest.raises(TlsError, match="VALUES_MISMATCH"):
        Identity(files).channel_credentials()


class Operators(admin_pb2_grpc.AdminServicer):
    def GetStatus(self, request: object, context: object) -> admin_pb2.Status:  # noqa: N802
        return admin_pb2.Status(run="here")


@pytest.fixture(scope="module")
def addresses(trial: Path) -> Iterator[dict[str, str]]:
    """A server that speaks mutual TLS, and one that does not know TLS."""
    server = grpc.server(futures.ThreadPoolExecutor(4, thread_name_prefix="operators"))
    admin_pb2_grpc.add_AdminServicer_to_server(Operators(), server)
    files = served(trial.parent / "server", "127.0.0.1", authority=trial / "authority")
    configuration = Identity(files).server_configuration()
    credentials = grpc.dynamic_ssl_server_credentials(configuration, lambda: None, True)
    ports = {
        "tls": server.add_secure_port("127.0.0.1:0", credentials),
        "plain": server.add_insecure_port("127.0.0.1:0"),
    }
    server.start()
    yield {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    server.stop(None).wait()


def status_of(address: str, identity: Identity | None) -> admin_pb2.Status:
    admin = AdminClient(address, "token", identity)
    try:
        return admin.status()
    finally:
        admin.close()


def test_a_trial_client_is_accepted(addresses: dict[str, str], trial: Path) -> None:
    assert status_of(addresses["tls"], Identity(trial / "admin")).run == "here"
    assert handshake_problem(addresses["tls"], Identity(trial / "admin")) == ""
    assert handshake_problem(addresses["plain"], None) == ""


def test_a_client_without_tls_is_told_that_the_server_has_it(addresses: dict[str, str]) -> None:
    with pytest.raises(RefusedError, match="it speaks TLS"):
        status_of(addresses["tls"], None)


def test_a_client_with_tls_is_told_that_the_server_has_none(addresses: dict[str, str], trial: Path) -> None:
    with pytest.raises(RefusedError, match="it does not speak TLS"):
        status_of(addresses["plain"], Identity(trial / "admin"))


def test_a_client_of_another_authority_does_not_accept_the_server(
    addresses: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=r"its certificate is not accepted: .*local issuer"):
        status_of(addresses["tls"], Identity(signed(tmp_path / "foreign", Role.ADMIN)))


def test_a_server_under_another_name_is_not_accepted(addresses: dict[str, str], trial: Path) -> None:
    with pytest.raises(RefusedError, match="not valid for 'localhost'"):
        status_of(addresses["tls"].replace("127.0.0.1", "localhost"), Identity(trial / "admin"))


def test_a_client_with_an_expired_certificate_is_told_so(
    addresses: dict[str, str], trial: Path, tmp_path: Path
) -> None:
    files = signed(tmp_path / "old", Role.ADMIN, days=-1, authority=trial / "authority")
    with pytest.raises(RefusedError, match="certificate has expired"):
        status_of(addresses["tls"], Identity(files))


def test_an_operator_takes_renewed_certificates_over(
    addresses: dict[str, str], trial: Path, tmp_path: Path
) -> None:
    files = signed(tmp_path / "old", Role.ADMIN, days=-1, authority=trial / "authority")
    admin = AdminClient(addresses["tls"], "token", Identity(files))
    renewed = signed(tmp_path / "new", Role.ADMIN, authority=trial / "authority")
    for name in ("tls.crt", "tls.key"):
        (renewed / name).replace(files / name)
    with pytest.raises(LearnerUnreachableError):
        admin.status()
    assert admin.status().run == "here"
    admin.close()


def test_a_client_without_a_certificate_is_told_that_one_is_wanted(
    addresses: dict[str, str], trial: Path, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match="it wants a client certificate"):
        status_of(addresses["tls"], without_certificate(trial, tmp_path / "stranger"))


def test_nobody_at_the_address_is_no_matter_of_tls(trial: Path) -> None:
    with pytest.raises(LearnerUnreachableError, match="does not answer"):
        status_of("127.0.0.1:1", Identity(trial / "admin"))


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere/ca\.crt: cannot be read"):
        AdminClient("127.0.0.1:1", "token", Identity(tmp_path / "nowhere"))


def test_a_context_checks_the_servers_name(trial: Path) -> None:
    context = Identity(trial / "admin").client_context()
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
