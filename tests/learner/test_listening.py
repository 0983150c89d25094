"""The learner's addresses and the encryption of its connections."""

from pathlib import Path

import pytest

from learner.listening import ListenTable, TlsTable, check_exposure
from protos.rpc.roles import Role
from unspool.config.config_error import ConfigError


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"host": ""}, 'learner.host = "": must not be empty'),
        ({"advertise": ""}, 'learner.advertise = "": must not be empty'),
        ({"advertise": "name:80"}, "without a port"),
        ({"port": 65536}, "learner.port = 65536: must be from 0 to 65535"),
        ({"http_port": -1}, "learner.http_port = -1: must be from 0 to 65535"),
    ],
)
def test_an_address_that_cannot_be_used_is_rejected(values: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ListenTable(**values)  # type: ignore[arg-type]
    assert problem in str(raised.value)


def test_two_servers_cannot_share_a_port() -> None:
    with pytest.raises(ConfigError) as raised:
        ListenTable(port=5000, admin_port=5000, http_port=5001)
    assert [problem.key for problem in raised.value.problems] == ["learner.port", "learner.admin_port"]


def test_any_free_port_may_be_requested_for_all_servers() -> None:
    assert ListenTable(port=0, admin_port=0, http_port=0) == ListenTable()


def test_client_certificates_need_a_directory() -> None:
    with pytest.raises(ConfigError, match=r"tls.mutual = true: needs tls.directory"):
        TlsTable(mutual=True)


def test_a_relative_directory_is_settled_where_the_run_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settled = TlsTable("certificates", mutual=True).settled()
    assert settled == TlsTable(str(tmp_path / "certificates"), mutual=True)
    assert TlsTable().settled() == TlsTable()


def test_each_party_has_its_folder_of_certificates() -> None:
    table = TlsTable("/tls")
    identities = [table.server, table.of(Role.WORKER), table.of(Role.ADMIN)]
    assert [one and one.directory for one in identities] == [
        Path("/tls/server"),
        Path("/tls/worker"),
        Path("/tls/admin"),
    ]


def test_without_a_directory_no_party_has_certificates() -> None:
    assert (TlsTable().server, TlsTable().of(Role.WORKER)) == (None, None)


@pytest.mark.parametrize(
    ("listen", "tls"),
    [
        (ListenTable("127.0.0.1"), TlsTable()),
        (ListenTable("localhost"), TlsTable()),
        (ListenTable("0.0.0.0"), TlsTable("/tls")),
        (ListenTable("0.0.0.0", insecure=True), TlsTable()),
    ],
    ids=["loopback", "localhost", "TLS", "insecure"],
)
def test_a_safe_exposure_is_accepted(listen: ListenTable, tls: TlsTable) -> None:
    check_exposure(listen, tls)


def test_an_unencrypted_port_beyond_loopback_is_rejected_with_both_remedies() -> None:
    with pytest.raises(ConfigError) as raised:
        check_exposure(ListenTable("0.0.0.0"), TlsTable())
    assert "tls.directory" in str(raised.value)
    assert "learner.insecure = true" in str(raised.value)
