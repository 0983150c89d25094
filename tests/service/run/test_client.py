import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.exit_codes import FailedError, LearnerUnreachableError, RefusedError, UnspoolError, UsageError
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc
from service.run import client
from service.run.client import AdminClient, connected
from service.run.run_directory import RunDirectory


class Admins(admin_pb2_grpc.AdminServicer):
    """An admin service that accepts one token and records the requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.refusal: grpc.StatusCode | None = None

    def _note(self, request: Any, context: Any) -> None:
        if dict(context.invocation_metadata()).get("authorization") != "Bearer secret":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown token")
        if self.refusal is not None:
            context.abort(self.refusal, "because")
        self.requests.append(request)

    def GetStatus(self, request: Any, context: Any) -> admin_pb2.Status:  # noqa: N802
        self._note(request, context)
        return admin_pb2.Status(run="here", outer_step=7)

    def WatchStatus(self, request: Any, context: Any) -> Iterator[admin_pb2.Status]:  # noqa: N802
        self._note(request, context)
        yield from (admin_pb2.Status(outer_step=step) for step in (1, 2))

    def Scale(self, request: Any, context: Any) -> admin_pb2.ScaleReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.ScaleReply(workers_before=2)

    def Drain(self, request: Any, context: Any) -> admin_pb2.DrainReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.DrainReply()

    def GetStack(self, request: Any, context: Any) -> admin_pb2.GetStackReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.GetStackReply(text=f"the stack of {request.worker_name}")

    def Stop(self, request: Any, context: Any) -> admin_pb2.StopReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.StopReply(outer_step=9)

    def ListEvents(self, request: Any, context: Any) -> admin_pb2.ListEventsReply:  # noqa: N802
        self._note(request, context)
        numbers = range(request.after + 1, 4)[:2]  # two events a page, three in all
        return admin_pb2.ListEventsReply(events=[admin_pb2.Event(number=number) for number in numbers])


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Admins, str]]:
    admins = Admins()
    server = grpc.server(futures.ThreadPoolExecutor(4, thread_name_prefix="admins"))
    admin_pb2_grpc.add_AdminServicer_to_server(admins, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield admins, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def admins(server: tuple[Admins, str]) -> Admins:
    server[0].requests.clear()
    server[0].refusal = None
    return server[0]


@pytest.fixture
def admin(server: tuple[Admins, str], admins: Admins) -> Iterator[AdminClient]:
    admin = AdminClient(server[1], "secret")
    yield admin
    admin.close()


def test_the_status_is_the_learners(admin: AdminClient) -> None:
    assert (admin.status().run, admin.status().outer_step) == ("here", 7)


def test_a_watch_yields_each_status(admin: AdminClient) -> None:
    assert [status.outer_step for status in admin.watch(0.5)] == [1, 2]


def test_each_type_of_request_belongs_to_one_call() -> None:
    methods = admin_pb2.DESCRIPTOR.services_by_name["Admin"].methods
    assert len({method.input_type.full_name for method in methods}) == len(methods)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (admin_pb2.ScaleRequest(workers=5), admin_pb2.ScaleReply(workers_before=2)),
        (admin_pb2.DrainRequest(worker_name="w3", deadline_s=60.0), admin_pb2.DrainReply()),
        (admin_pb2.GetStackRequest(worker_name="w3"), admin_pb2.GetStackReply(text="the stack of w3")),
        (admin_pb2.StopRequest(now=True), admin_pb2.StopReply(outer_step=9)),
    ],
)
def test_a_request_reaches_its_call_and_returns_the_reply(
    admin: AdminClient, admins: Admins, request_: Any, reply: Any
) -> None:
    assert admin.ask(request_) == reply
    assert admins.requests == [request_]


def test_events_are_read_page_by_page(
    admin: AdminClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(client, "connected", lambda run: contextlib.nullcontext(admin))
    assert [event.number for event in client.events_of(RunDirectory(tmp_path), follow=False)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, UsageError),
        (grpc.StatusCode.NOT_FOUND, UsageError),
        (grpc.StatusCode.FAILED_PRECONDITION, FailedError),
        (grpc.StatusCode.INTERNAL, FailedError),
        (grpc.StatusCode.UNAVAILABLE, LearnerUnreachableError),
        (grpc.StatusCode.UNIMPLEMENTED, LearnerUnreachableError),
        (grpc.StatusCode.PERMISSION_DENIED, RefusedError),
    ],
)
def test_the_learners_refusals_are_typed(
    admin: AdminClient, admins: Admins, code: grpc.StatusCode, error: type[UnspoolError]
) -> None:
    admins.refusal = code
    with pytest.raises(error, match="because"):
        admin.status()


@pytest.mark.parametrize(
    "ask",
    [
        AdminClient.status,
        lambda admin: admin.ask(admin_pb2.PauseRequest()),
        lambda admin: list(admin.watch(1.0)),
    ],
)
def test_a_port_where_nobody_listens_is_named(ask: Callable[[AdminClient], Any]) -> None:
    admin = AdminClient("127.0.0.1:1", "secret")
    with pytest.raises(LearnerUnreachableError, match=r"127\.0\.0\.1:1 does not answer"):
        ask(admin)
    admin.close()


def test_a_wrong_token_is_refused(server: tuple[Admins, str]) -> None:
    admin = AdminClient(server[1], "guess")
    with pytest.raises(RefusedError, match="unknown token"):
        admin.status()
    admin.close()


def test_a_run_that_is_not_running_has_no_learner_to_connect_to(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create("seed = 0\n")
    with pytest.raises(LearnerUnreachableError, match="does not listen"), connected(run):
        pass


def test_events_of_a_run_that_has_ended_are_read_from_its_log(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.create("seed = 0\n")
    line = {"number": 1, "unix_time_s": 0.0, "level": "info", "kind": "joined", "text": "w0"}
    (run.path / "logs" / "events.jsonl").write_text(json.dumps(line) + "\n{cut o")
    assert [event.text for event in client.events_of(run, follow=True)] == ["w0"]
