"""Who is let into a relay, and where it may listen."""

from collections.abc import Iterator

import grpc
import pytest

from protos.rpc.tls import TlsError
from protos.unspool.v1 import learner_pb2
from tests.workers.fake_learner import PATIENCE_S, FakeLearner
from workers.relay.relay import Relay, RelaySettings
from workers.settings import WorkerSettings

METHODS = list(learner_pb2.DESCRIPTOR.services_by_name["Learner"].methods)


def make_relay(**changes: object) -> Relay:
    upstream = WorkerSettings(learner="fake:0", token="right", name="relay")
    return Relay(RelaySettings(upstream, **changes), FakeLearner())


@pytest.fixture
def address() -> Iterator[str]:
    relay = make_relay()
    relay._server.start()
    yield relay.address
    relay._server.stop()


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "right", "Bearer "])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_method_is_open_without_the_token(address, method, authorization):
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(f"/unspool.v1.Learner/{method.name}")
        answers = call(
            iter([b""]), metadata=[("authorization", authorization)], timeout=PATIENCE_S, wait_for_ready=True
        )
        with pytest.raises(grpc.RpcError) as error:
            list(answers)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_worker_is_told_to_come_back_while_there_is_no_learner(address):
    with grpc.insecure_channel(address) as channel:
        join = channel.unary_unary(
            "/unspool.v1.Learner/Join",
            learner_pb2.JoinRequest.SerializeToString,
            learner_pb2.JoinReply.FromString,
        )
        with pytest.raises(grpc.RpcError, match="not reached its learner") as error:
            join(
                learner_pb2.JoinRequest(worker_name="w0", incarnation="i0"),
                metadata=[("authorization", "Bearer right")],
                timeout=PATIENCE_S,
                wait_for_ready=True,
            )
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_beyond_loopback_a_relay_needs_tls():
    with pytest.raises(TlsError, match="must be encrypted"):
        make_relay(host="0.0.0.0")


def test_two_relays_do_not_share_a_port(address):
    with pytest.raises(OSError, match="cannot listen"):
        make_relay(port=int(address.rpartition(":")[2]))


@pytest.mark.parametrize("changes", [{"port": -1}, {"port": 1 << 16}, {"max_workers": 0}])
def test_impossible_settings_are_refused_by_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        make_relay(**changes)
