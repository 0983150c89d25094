"""Who is let in, and what the servers do when there is no room."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc._cython import cygrpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from learner.grpc_server import _OPTIONS, GrpcServer
from protos.unspool.v1 import admin_pb2, learner_pb2
from tests.learner.builders import make_settings
from tests.learner.running import PATIENCE_S, RunningLearner

METHODS: list[tuple[str, MethodDescriptor]] = [
    (plane, method)
    for plane, file, service in [
        ("learner", learner_pb2.DESCRIPTOR, "Learner"),
        ("admin", admin_pb2.DESCRIPTOR, "Admin"),
        ("admin", health_pb2.DESCRIPTOR, "Health"),
        ("admin", reflection_pb2.DESCRIPTOR, "ServerReflection"),
    ]
    for method in file.services_by_name[service].methods
    if method.full_name != "grpc.health.v1.Health.Check"
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLearner]:
    with RunningLearner(make_settings(tmp_path_factory.mktemp("run"))) as learner:
        yield learner


def invoke(channel: Any, method: MethodDescriptor, metadata: list[tuple[str, str]]) -> grpc.StatusCode:
    """Call any method with an empty request; returns how it ended."""
    service, _, name = method.full_name.rpartition(".")
    streams = "_".join(
        "stream" if streaming else "unary" for streaming in (method.client_streaming, method.server_streaming)
    )
    call = getattr(channel, streams)(f"/{service}/{name}")
    request = iter([b""]) if method.client_streaming else b""
    try:
        reply = call(request, metadata=metadata, timeout=PATIENCE_S)
        next(reply) if method.server_streaming else reply
    except grpc.RpcError as error:
        code: Any = error
        return code.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("header", [None, "Bearer wrong", "secret-token", "bearer secret-token", "Bearer "])
@pytest.mark.parametrize(("plane", "method"), METHODS, ids=lambda value: getattr(value, "full_name", value))
def test_every_method_is_refused_without_the_token(
    running: RunningLearner, plane: str, method: MethodDescriptor, header: str | None
) -> None:
    metadata = [] if header is None else [("authorization", header)]
    assert invoke(running.channel(plane), method, metadata) is grpc.StatusCode.UNAUTHENTICATED


def test_a_method_that_does_not_exist_looks_like_any_other_without_the_token(running: RunningLearner) -> None:
    call = running.channel("admin").unary_unary("/unspool.v1.Admin/NoSuchMethod")
    with pytest.raises(grpc.RpcError, match="does not present this run's token"):
        call(b"", timeout=PATIENCE_S)


def test_health_can_be_checked_by_anyone(running: RunningLearner) -> None:
    call = running.channel("admin").unary_unary("/grpc.health.v1.Health/Check")
    reply = health_pb2.HealthCheckResponse.FromString(call(b"", timeout=PATIENCE_S))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(running: RunningLearner) -> None:
    call = running.channel("admin").stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    reply = next(call(iter([request]), metadata=running.metadata, timeout=PATIENCE_S))
    listed = reflection_pb2.ServerReflectionResponse.FromString(reply).list_services_response.service
    assert {"unspool.v1.Learner", "unspool.v1.Admin"} <= {service.name for service in listed}


class Blocking(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """Answers every call once it is let."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()

    def service(self, handler_call_details: Any) -> Any:
        def answer(request: bytes, context: Any) -> bytes:
            self.entered.set()
            self.let_go.wait(PATIENCE_S)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


def test_a_full_server_refuses_at_once_instead_of_letting_callers_wait() -> None:
    server, handler = GrpcServer("test", threads=1, token="t"), Blocking()
    server.server.add_generic_rpc_handlers([handler])
    channel = grpc.insecure_channel(f"127.0.0.1:{server.bind('127.0.0.1', 0)}")
    server.start()
    call, metadata = channel.unary_unary("/any/method"), [("authorization", "Bearer t")]
    first = call.future(b"", metadata=metadata)
    assert handler.entered.wait(PATIENCE_S)
    with pytest.raises(grpc.RpcError) as error:
        call(b"", metadata=metadata, timeout=PATIENCE_S)
    handler.let_go.set()
    first.result(PATIENCE_S)
    channel.close()
    server.stop(0)
    refused: Any = error.value
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("option", [name for name, _ in _OPTIONS])
def test_every_server_option_is_one_that_grpc_knows(option: str) -> None:
    # Unknown keys are ignored silently.
    assert option.encode() in Path(cygrpc.__file__).read_bytes()
