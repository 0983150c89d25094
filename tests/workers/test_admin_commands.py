"""Commands of an admin about a real worker that hangs in an estimate."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc
from tests.support.patience import PATIENCE_S
from tests.workers.cluster import Cluster
from workers.unrolling.unroller import Unroller


class Hanging:
    """Makes the first estimate wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hangs = threading.Event()
        self.released = threading.Event()
        self._estimate = Unroller.estimate
        monkeypatch.setattr(Unroller, "estimate", lambda *args: self.estimate_that_hangs(*args))

    def estimate_that_hangs(self, *args: Any) -> Any:
        self.hangs.set()
        assert self.released.wait(PATIENCE_S)
        return self._estimate(*args)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    hanging = Hanging(monkeypatch)
    yield hanging
    hanging.released.set()


@pytest.fixture
def admin_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(admin_port: int, method: str, request: Any) -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{admin_port}") as channel:
        call = getattr(admin_pb2_grpc.AdminStub(channel), method)
        metadata = [("authorization", "Bearer admin")]
        return call(request, metadata=metadata, timeout=PATIENCE_S, wait_for_ready=True)


def test_a_worker_answers_for_its_stack_while_it_computes(
    tmp_path: Path, hanging: Hanging, admin_port: int
) -> None:
    cluster = Cluster(tmp_path, admin_port=admin_port)
    cluster.start_worker()
    assert hanging.hangs.wait(PATIENCE_S)
    reply = ask(admin_port, "GetStack", admin_pb2.GetStackRequest(worker_name="w0"))
    hanging.released.set()
    assert "estimate_that_hangs" in reply.text
    assert cluster.finish()["state"] == "FINISHED"


def test_an_evicted_worker_ends_and_another_one_continues(
    tmp_path: Path, hanging: Hanging, admin_port: int, expected: str
) -> None:
    cluster = Cluster(tmp_path, admin_port=admin_port)
    cluster.start_worker()
    assert hanging.hangs.wait(PATIENCE_S)
    ask(admin_port, "Evict", admin_pb2.EvictRequest(worker_name="w0"))
    hanging.released.set()
    cluster.wait_for_end("w0")
    cluster.start_worker()
    assert cluster.finish()["theta_sha256"] == expected
    assert cluster.codes == {"w0": ExitCode.EVICTED, "w1": ExitCode.OK}
