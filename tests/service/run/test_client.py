from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from learner.scale import WorkerRange
from protos.exit_codes import FailedError, LearnerUnreachableError, RefusedError, UnspoolError, UsageError
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc
from service.run.client import AdminClient, connected
from service.run.run_directory import RunDirectory


class Operators(admin_pb2_grpc.AdminServicer):
    """A learner's operator's plane that knows one token and keeps what it was asked."""

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

    def Evict(self, request: Any, context: Any) -> admin_pb2.EvictReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.EvictReply()

    def GetStack(self, request: Any, context: Any) -> admin_pb2.GetStackReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.GetStackReply(text=f"the stack of {request.worker_name}")

    def ResetLane(self, request: Any, context: Any) -> admin_pb2.ResetLaneReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.ResetLaneReply()

    def Stop(self, request: Any, context: Any) -> admin_pb2.StopReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.StopReply(outer_step=9)

    def ListEvents(self, request: Any, context: Any) -> admin_pb2.ListEventsReply:  # noqa: N802
        self._note(request, context)
        return admin_pb2.ListEventsReply(events=[admin_pb2.Event(number=request.after + 1)])


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Operators, str]]:
    operators = Operators()
    server = grpc.server(futures.ThreadPoolExecutor(4, thread_name_prefix="operators"))
    admin_pb2_grpc.add_AdminServicer_to_server(operators, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield operators, f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def operators(server: tuple[Operators, str]) -> Operators:
    server[0].requests.clear()
    server[0].refusal = None
    return server[0]


@pytest.fixture
def admin(server: tuple[Operators, str], operators: Operators) -> Iterator[AdminClient]:
    admin = AdminClient(server[1], "secret")
    yield admin
    admin.close()


def test_the_status_is_the_learners(admin: AdminClient) -> None:
    assert (admin.status().run, admin.status().outer_step) == ("here", 7)


def test_a_watch_yields_each_status(admin: AdminClient) -> None:
    assert [status.outer_step for status in admin.watch(0.5)] == [1, 2]


def test_scaling_says_what_was_wanted_before(admin: AdminClient, operators: Operators) -> None:
    assert admin.scale(WorkerRange(5, 5)) == 2
    assert operators.requests == [admin_pb2.ScaleRequest(workers=5)]


def test_a_drain_names_worker_deadline_and_reason(admin: AdminClient, operators: Operators) -> None:
    admin.drain("w3", 60.0, "scaled down")
    expected = admin_pb2.DrainRequest(worker_name="w3", deadline_s=60.0, reason="scaled down")
    assert operators.requests == [expected]


def test_scaling_to_a_range_leaves_the_number_to_the_learner(
    admin: AdminClient, operators: Operators
) -> None:
    assert admin.scale(WorkerRange(1, 8)) == 2
    expected = admin_pb2.ScaleRequest(range=admin_pb2.WorkersRange(min=1, max=8))
    assert operators.requests == [expected]


def test_an_eviction_names_worker_and_reason(admin: AdminClient, operators: Operators) -> None:
    admin.evict("w3", "because")
    assert operators.requests == [admin_pb2.EvictRequest(worker_name="w3", reason="because")]


def test_a_stack_is_the_workers(admin: AdminClient) -> None:
    assert admin.stack("w3") == "the stack of w3"


def test_a_lanes_reset_says_whether_it_restarts(admin: AdminClient, operators: Operators) -> None:
    admin.reset_lane(2, fresh=True)
    assert operators.requests == [admin_pb2.ResetLaneRequest(lane=2, fresh=True)]


def test_a_stop_says_whether_to_wait(admin: AdminClient, operators: Operators) -> None:
    assert admin.stop(now=True) == 9
    assert operators.requests == [admin_pb2.StopRequest(now=True)]


def test_events_are_asked_for_from_a_number_on(admin: AdminClient) -> None:
    assert [event.number for event in admin.events(after=41)] == [42]


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
    admin: AdminClient, operators: Operators, code: grpc.StatusCode, error: type[UnspoolError]
) -> None:
    operators.refusal = code
    with pytest.raises(error, match="because"):
        admin.status()


@pytest.mark.parametrize("ask", [AdminClient.status, AdminClient.pause, lambda admin: list(admin.watch(1.0))])
def test_a_port_where_nobody_listens_is_named(ask: Callable[[AdminClient], Any]) -> None:
    admin = AdminClient("127.0.0.1:1", "secret")
    with pytest.raises(LearnerUnreachableError, match=r"127\.0\.0\.1:1 does not answer"):
        ask(admin)
    admin.close()


def test_a_wrong_token_is_refused(server: tuple[Operators, str]) -> None:
    admin = AdminClient(server[1], "guess")
    with pytest.raises(RefusedError, match="unknown token"):
        admin.status()
    admin.close()


def test_a_run_that_is_not_running_has_no_learner_to_connect_to(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create("seed = 0\n")
    with pytest.raises(LearnerUnreachableError, match="does not listen"), connected(run):
        pass
