import queue
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest

from protos import codec
from protos.exit_codes import RefusedError
from protos.rpc.tls import Identity
from protos.unspool.v1 import common_pb2, learner_pb2, learner_pb2_grpc
from tests.certificates import signed, trial_certificates
from workers.session.client import LearnerClient, UnavailableError

BODY = bytes(range(256)) * 10


class Servicer(learner_pb2_grpc.LearnerServicer):
    """A learner with one theta; `abort` makes every call fail."""

    def __init__(self) -> None:
        self.abort: grpc.StatusCode | None = None
        self.metadata: dict[str, str] = {}
        self.chunks: list[common_pb2.Chunk] = list(codec.chunks(BODY, 0, 1000))

    def _enter(self, context: grpc.ServicerContext) -> None:
        self.metadata = dict(context.invocation_metadata())
        if self.abort is not None:
            context.abort(self.abort, "for a reason")

    def Join(self, request, context):  # noqa: N802  # the wire's name
        self._enter(context)
        return learner_pb2.JoinReply(run_id=request.run_id)

    def Session(self, request_iterator, context):  # noqa: N802  # the wire's name
        self._enter(context)
        for message in request_iterator:
            yield learner_pb2.LearnerMessage(
                heartbeat_ack=learner_pb2.HeartbeatAck(outer_step=message.heartbeat.progress)
            )

    def GetTheta(self, request, context):  # noqa: N802  # the wire's name
        self._enter(context)
        yield from self.chunks

    GetSnapshot = GetTheta

    def Leave(self, request, context):  # noqa: N802  # the wire's name
        self._enter(context)
        return learner_pb2.LeaveReply()


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
def address(servicer: Servicer) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    learner_pb2_grpc.add_LearnerServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def client(address: str) -> Iterator[LearnerClient]:
    client = LearnerClient(address, "the-token")
    yield client
    client.close()


def heartbeats(count: int) -> Iterator[learner_pb2.WorkerMessage]:
    for number in range(count):
        yield learner_pb2.WorkerMessage(heartbeat=learner_pb2.Heartbeat(progress=number))


CALLS: dict[str, Callable[[LearnerClient], object]] = {
    "join": lambda client: client.join(learner_pb2.JoinRequest()),
    "session": lambda client: list(client.open_session("secret", heartbeats(1))),
    "theta": lambda client: client.get_theta(3, len(BODY)),
    "snapshot": lambda client: client.get_snapshot(0, 1, len(BODY)),
    "leave": lambda client: client.leave("w0#1", "done"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_carries_the_token(client, servicer, call):
    call(client)
    assert servicer.metadata["authorization"] == "Bearer the-token"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, RefusedError),
        (grpc.StatusCode.FAILED_PRECONDITION, RefusedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, UnavailableError),
        (grpc.StatusCode.INTERNAL, UnavailableError),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_status_code_becomes_an_error_that_says_whether_to_retry(client, servicer, call, code, error):
    servicer.abort = code
    with pytest.raises(error, match="for a reason"):
        call(client)


def test_a_session_carries_its_secret_and_both_directions(client, servicer):
    received = list(client.open_session("secret", heartbeats(3)))
    assert servicer.metadata["unspool-session"] == "secret"
    assert [message.heartbeat_ack.outer_step for message in received] == [0, 1, 2]


def test_a_theta_is_put_together_from_its_chunks(client):
    assert bytes(client.get_theta(3, len(BODY))) == BODY
    assert bytes(client.get_snapshot(0, 1, 10**6)) == BODY


@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY) + 1])
def test_a_theta_of_another_size_than_expected_is_not_taken(client, size):
    with pytest.raises(UnavailableError):
        client.get_theta(3, size)


def test_a_snapshot_beyond_its_bound_is_not_taken(client):
    with pytest.raises(UnavailableError):
        client.get_snapshot(0, 1, len(BODY) - 1)


@pytest.mark.parametrize(
    "fetch", [lambda c: c.get_theta(3, len(BODY)), lambda c: c.get_snapshot(0, 1, 10**6)]
)
def test_a_damaged_chunk_is_not_taken(client, servicer, fetch):
    servicer.chunks[1].crc32 ^= 1
    with pytest.raises(UnavailableError, match="crc32"):
        fetch(client)


def test_a_cancelled_stream_ends_for_its_reader(client):
    nothing_to_say = queue.SimpleQueue()
    stream = client.open_session("secret", iter(nothing_to_say.get, None))
    stream.cancel()
    nothing_to_say.put(None)
    with pytest.raises(UnavailableError):
        list(stream)


def test_a_closed_client_is_unavailable(client):
    client.close()
    with pytest.raises(UnavailableError):
        client.leave("w0#1", "done")


def test_an_address_without_a_learner_is_no_refusal():
    client = LearnerClient("127.0.0.1:1", "token")
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        client.get_theta(0, 1)
    client.close()


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    return trial_certificates(tmp_path_factory.mktemp("certificates") / "trial")


@pytest.fixture
def tls_address(servicer: Servicer, trial) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    learner_pb2_grpc.add_LearnerServicer_to_server(servicer, server)
    configuration = Identity(trial / "server").server_configuration()
    port = server.add_secure_port(
        "localhost:0", grpc.dynamic_ssl_server_credentials(configuration, lambda: None, True)
    )
    server.start()
    yield f"localhost:{port}"
    server.stop(None).wait()


@pytest.fixture
def connect() -> Iterator[Callable[..., LearnerClient]]:
    clients = []

    def connect(address, identity=None):
        clients.append(LearnerClient(address, "the-token", identity))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_works_over_mutual_tls(tls_address, trial, connect, servicer, call):
    call(connect(tls_address, Identity(trial / "worker")))
    assert servicer.metadata["authorization"] == "Bearer the-token"


@pytest.mark.parametrize(
    ("days", "authority", "words"),
    [(-1, True, "certificate has expired"), (2, False, "its certificate is not accepted")],
)
def test_a_worker_that_tls_rejects_learns_the_reason_and_does_not_retry(
    tls_address, trial, tmp_path, connect, days, authority, words
):
    files = signed(tmp_path / "bad", days=days, authority=trial / "authority" if authority else None)
    with pytest.raises(RefusedError, match=words):
        connect(tls_address, Identity(files)).join(learner_pb2.JoinRequest())


def test_a_worker_that_was_in_waits_for_its_certificate_to_be_renewed(tls_address, trial, tmp_path, connect):
    files, authority = signed(tmp_path / "files", authority=trial / "authority"), trial / "authority"
    client = connect(tls_address, Identity(files))
    client.join(learner_pb2.JoinRequest())
    replace_files(files, signed(tmp_path / "old", days=-1, authority=authority))
    with pytest.raises(UnavailableError, match="certificate has expired"):
        client.join(learner_pb2.JoinRequest())
    replace_files(files, signed(tmp_path / "new", authority=authority))
    assert client.join(learner_pb2.JoinRequest(run_id="again")).run_id == "again"


def replace_files(files, by):
    for name in ("tls.crt", "tls.key"):
        (by / name).replace(files / name)


def test_a_learner_that_is_away_is_no_refusal_under_tls_either(trial, connect):
    with pytest.raises(UnavailableError):
        connect("localhost:1", Identity(trial / "worker")).join(learner_pb2.JoinRequest())
