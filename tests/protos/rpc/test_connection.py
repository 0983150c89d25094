import socket

import pytest

from protos.rpc.connection import address_of, advertised_host, host_of, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost"])
def test_loopback_addresses_are_recognized(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "localhost.example.org", ""])
def test_other_hosts_are_not_loopback_and_are_not_resolved(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.0.0.1", "10.0.0.1:7"), ("::1", "[::1]:7"), ("[::1]", "[::1]:7"), ("node", "node:7")],
)
def test_an_address_has_brackets_around_ipv6_only(host: str, address: str) -> None:
    assert address_of(host, 7) == address
    assert host_of(address) == host.strip("[]")


def test_the_host_that_the_user_names_is_advertised() -> None:
    assert advertised_host("0.0.0.0", "learner.example.org") == "learner.example.org"
    assert advertised_host("10.0.0.1", None) == "10.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]"])
def test_a_server_on_all_addresses_advertises_one_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(socket, "gethostbyname", {"node7": "10.0.0.7"}.__getitem__)
    assert advertised_host(host, None) == "10.0.0.7"


def test_a_machine_whose_name_does_not_resolve_advertises_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise OSError(f"{name}: unknown")

    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(socket, "gethostbyname", unknown)
    assert advertised_host("0.0.0.0", None) == "node7"
