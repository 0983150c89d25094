"""Channels between the processes of a run ignore the proxies that an environment names."""

import re
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from protos.rpc.channels import open_channel

ROOT = Path(__file__).parents[3]
PACKAGES = ("unspool", "learner", "workers", "service", "protos", "benchmarks")
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def answers(channel: grpc.Channel) -> bool:
    with channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.RpcError:
            return False
        return True


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_proxy_in_the_environment_does_not_concern_a_runs_channels(
    address: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, NOBODY)
    assert not answers(grpc.insecure_channel(address))  # so the proxy is in force
    assert answers(open_channel(address, None))


def test_channels_are_opened_in_one_place() -> None:
    places = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\bgrpc\.(aio\.)?(in)?secure_channel\(", path.read_text())
    ]
    assert places == ["protos/rpc/channels.py"]
