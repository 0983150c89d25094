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

from protos.rpc.access import Access, Tokens
from protos.rpc.denials import HANDSHAKE_S, DenialReason, Denials
from protos.rpc.roles import Role, certificate_name, certified, needed_role
from protos.rpc.server import _OPTIONS, GrpcServer
from protos.unspool.v1 import admin_pb2, common_pb2, learner_pb2
from tests.learner.builders import TOKENS, make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner
from tests.support.clock import Clock
from tests.support.patience import PATIENCE_S

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


BEARERS = {role: f"Bearer {getattr(TOKENS, role)}" for role in Role}


def path_of(method: MethodDescriptor) -> str:
    service, _, name = method.full_name.rpartition(".")
    return f"/{service}/{name}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLearner]:
    with RunningLearner(make_settings(tmp_path_factory.mktemp("run"))) as learner:
        yield learner


def invoke(channel: Any, method: MethodDescriptor, metadata: list[tuple[str, str]]) -> grpc.StatusCode:
    """Call any method with an empty request; returns how it ended."""
    streams = "_".join(
        "stream" if streaming else "unary" for streaming in (method.client_streaming, method.server_streaming)
    )
    call = getattr(channel, streams)(path_of(method))
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


@pytest.mark.parametrize("role", [Role.WORKER, Role.VIEWER])
@pytest.mark.parametrize(("plane", "method"), METHODS, ids=lambda value: getattr(value, "full_name", value))
def test_a_method_is_for_its_role_and_the_runs_owner_only(
    running: RunningLearner, plane: str, method: MethodDescriptor, role: Role
) -> None:
    outcome = invoke(running.channel(plane), method, [("authorization", BEARERS[role])])
    is_denied = outcome is grpc.StatusCode.PERMISSION_DENIED
    assert is_denied is not role.covers(needed_role(path_of(method)))


def test_every_service_of_the_wire_is_tried_here() -> None:
    files = (common_pb2.DESCRIPTOR, learner_pb2.DESCRIPTOR, admin_pb2.DESCRIPTOR)
    services = {service.full_name for file in files for service in file.services_by_name.values()}
    assert services <= {method.containing_service.full_name for _, method in METHODS}


def test_every_method_has_a_role_and_those_that_steer_the_run_are_the_admins() -> None:
    roles = {
        method.full_name.removeprefix("unspool.v1."): needed_role(path_of(method)) for _, method in METHODS
    }
    assert {name for name, role in roles.items() if role is Role.ADMIN} == {
        f"Admin.{name}"
        for name in (
            "Scale",
            "Drain",
            "Evict",
            "GetStack",
            "NoteSupervision",
            "ResetLane",
            "Pause",
            "Resume",
            "SaveCheckpoint",
            "Stop",
        )
    }
    assert {name for name, role in roles.items() if role is Role.WORKER} == {
        f"Learner.{name}" for name in ("Join", "Session", "GetTheta", "GetSnapshot", "Leave")
    }


def test_a_wrong_role_learns_which_one_is_needed(running: RunningLearner) -> None:
    metadata = [("authorization", BEARERS[Role.VIEWER])]
    with pytest.raises(
        grpc.RpcError, match=r"Admin/Stop needs the role admin; the token presented is the viewer"
    ):
        running.admin.Stop(admin_pb2.StopRequest(), metadata=metadata, timeout=PATIENCE_S)


def test_refusals_are_counted_by_reason_and_shown(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        method = learner_pb2.DESCRIPTOR.services_by_name["Learner"].methods_by_name["GetTheta"]
        for header in ("Bearer guess", "Bearer guess", BEARERS[Role.VIEWER]):
            invoke(running.channel("learner"), method, [("authorization", header)])
        invoke(running.channel("learner"), method, [])
        counts, metrics = dict(running.status().access_denials), running.get("/metrics")[1].decode()
        kinds = [event.text for event in running.ask("ListEvents", admin_pb2.ListEventsRequest()).events]
    assert counts == {"wrong_token": 2, "wrong_role": 1, "no_token": 1}
    assert 'unspool_access_denials_total{reason="wrong_token"} 2.0' in metrics
    assert sum(text.startswith("wrong_token: ") for text in kinds) == 1


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"run_id": "another"}, "wrong_run", "serves run 'test-run', the worker asked for 'another'"),
        ({"protocol_min": 7, "protocol_max": 9}, "wrong_protocol", "speaks protocol 1, the worker 7 to 9"),
        ({"worker_name": "../w0"}, "bad_name", "letters, digits"),
    ],
)
def test_a_worker_that_does_not_fit_learns_the_reason_and_is_counted(
    running: RunningLearner, changes: dict[str, Any], reason: str, words: str
) -> None:
    fields = {"protocol_min": 1, "protocol_max": 1, "worker_name": "w0", "process_uuid": "i0", **changes}
    before = running.status().access_denials[reason]
    with pytest.raises(grpc.RpcError, match=words):
        running.learner.Join(learner_pb2.JoinRequest(**fields), metadata=running.metadata, timeout=PATIENCE_S)
    assert running.status().access_denials[reason] == before + 1


@pytest.mark.parametrize(("body", "reason"), [(b"two", "wrong_schema"), (b"more than a scalar", "too_large")])
def test_a_gradient_of_another_shape_is_counted_as_a_refusal(
    tmp_path: Path, body: bytes, reason: str
) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        worker = HandWrittenWorker(running).enter()
        grants = worker.grants(3)
        worker.push(grants[0], 1, 0, body)
        worker.next("verdict")
        assert dict(running.status().access_denials) == {reason: 1}


def test_a_worker_that_finds_itself_unfit_is_counted(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        worker = HandWrittenWorker(running).enter()
        request = learner_pb2.LeaveRequest(
            session_id=worker.reply.session_id, reason="another theta", unfit=True
        )
        running.learner.Leave(request, metadata=running.metadata, timeout=PATIENCE_S)
        assert running.status().access_denials["unfit_worker"] == 1


def test_a_stream_without_a_join_is_counted(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        method = learner_pb2.DESCRIPTOR.services_by_name["Learner"].methods_by_name["Session"]
        outcome = invoke(running.channel("learner"), method, [("authorization", BEARERS[Role.WORKER])])
        assert outcome is grpc.StatusCode.FAILED_PRECONDITION
        assert running.status().access_denials["no_session"] == 1


def test_a_message_beyond_the_limit_is_refused_before_it_is_kept(running: RunningLearner) -> None:
    call = running.channel("admin").unary_unary("/unspool.v1.Admin/GetStatus")
    with pytest.raises(grpc.RpcError, match="larger than max") as error:
        call(b"\0" * (5 << 20), metadata=running.metadata, timeout=PATIENCE_S)
    refused: Any = error.value
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_beyond_the_limit_is_refused(running: RunningLearner) -> None:
    call = running.channel("admin").unary_unary("/unspool.v1.Admin/GetStatus")
    with pytest.raises(grpc.RpcError, match="metadata"):
        call(b"", metadata=[*running.metadata, ("ballast", "x" * (16 << 10))], timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        (("", "w", "v"), r"Tokens\(admin=...\): must not be empty"),
        (("a", "", "v"), r"Tokens\(worker=...\): must not be empty"),
        (("a", "w", "a"), "each role needs a token of its own"),
    ],
)
def test_tokens_that_protect_nothing_are_refused(secrets: tuple[str, str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tokens(*secrets)


def test_tokens_are_not_shown() -> None:
    assert TOKENS.worker not in repr(TOKENS)


def test_a_certificates_name_says_run_and_role() -> None:
    assert certified(certificate_name("digits-1", Role.WORKER)) == ("digits-1", Role.WORKER)
    others = (
        "",
        "unspool://",
        "unspool://run",
        "unspool:///worker",
        "unspool://run/root",
        "https://run/worker",
    )
    assert [certified(uri) for uri in others] == [None] * len(others)


@pytest.mark.parametrize(
    ("uris", "needed", "reason"),
    [
        (["unspool://run/worker"], Role.WORKER, None),
        (["unspool://*/worker"], Role.WORKER, None),
        (["unspool://run/admin"], Role.WORKER, None),
        (["unspool://run/viewer", "unspool://run/worker"], Role.WORKER, None),
        ([], Role.WORKER, DenialReason.NO_CERTIFICATE),
        (["spiffe://run/worker"], Role.WORKER, DenialReason.NO_CERTIFICATE),
        (["unspool://other/worker"], Role.WORKER, DenialReason.WRONG_RUN),
        (["unspool://run/worker"], Role.ADMIN, DenialReason.WRONG_ROLE),
        (["unspool://run/viewer", "unspool://other/admin"], Role.ADMIN, DenialReason.WRONG_ROLE),
    ],
)
def test_a_certificate_is_for_a_run_and_a_role(
    uris: list[str], needed: Role, reason: DenialReason | None
) -> None:
    refusals = Denials()
    refusal = Access(TOKENS.by_role(), "run", refusals, is_mutual=True).check_certificate(uris, needed, "it")
    assert (refusal and refusal.reason) is reason
    assert refusals.counts() == ({} if reason is None else {str(reason): 1})


def test_handshakes_that_no_call_follows_count_as_refused() -> None:
    clock = Clock()
    refusals = Denials(clock)
    for _ in range(3):
        refusals.handshake_began()
    refusals.called("ipv4:10.0.0.1:1")
    refusals.called("ipv4:10.0.0.1:1")
    clock.advance(HANDSHAKE_S / 2)
    assert refusals.counts() == {}
    clock.advance(HANDSHAKE_S)
    assert refusals.counts() == {"tls_handshake": 2}


def test_every_reason_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "security.md").read_text()
    assert [reason for reason in DenialReason if f"`{reason}`" not in page] == []


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
    access = Access(TOKENS.by_role(), "run", Denials(), is_mutual=False)
    server, handler = GrpcServer("test", threads=1, access=access), Blocking()
    server.server.add_generic_rpc_handlers([handler])
    channel = grpc.insecure_channel(f"127.0.0.1:{server.bind('127.0.0.1', 0)}")
    server.start()
    call, metadata = channel.unary_unary("/any/method"), [("authorization", f"Bearer {TOKENS.admin}")]
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
