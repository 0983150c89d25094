"""Access to a relay's server, and the addresses where it may listen."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.exit_codes import PortInUseError
from protos.rpc.connection import advertised_host
from protos.rpc.tls import Identity, TlsError
from protos.unspool.v1 import learner_pb2
from tests.certificates import served, signed, trial_certificates
from tests.support.patience import PATIENCE_S
from tests.workers.fake_learner import FakeLearner
from workers.relay.relay import Relay, RelaySettings
from workers.settings import WorkerSettings

METHODS = list(learner_pb2.DESCRIPTOR.services_by_name["Learner"].methods)


def make_relay(tls: Path | None = None, **changes: Any) -> Relay:
    identity = None if tls is None else Identity(tls)
    upstream = WorkerSettings(learner="fake:0", token="right", name="relay", tls=identity)
    return Relay(RelaySettings(upstream, **changes), FakeLearner())


@pytest.fixture
def address() -> Iterator[str]:
    relay = make_relay()
    relay._server.start()
    yield relay.address
    relay._server.stop(0)


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


def test_a_worker_may_retry_while_the_relay_has_no_learner(address):
    with grpc.insecure_channel(address) as channel:
        join = channel.unary_unary(
            "/unspool.v1.Learner/Join",
            learner_pb2.JoinRequest.SerializeToString,
            learner_pb2.JoinReply.FromString,
        )
        with pytest.raises(grpc.RpcError, match="not reached its learner") as error:
            join(
                learner_pb2.JoinRequest(worker_name="w0", process_uuid="i0"),
                metadata=[("authorization", "Bearer right")],
                timeout=PATIENCE_S,
                wait_for_ready=True,
            )
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_beyond_loopback_a_relay_needs_tls():
    with pytest.raises(TlsError, match="must be encrypted"):
        make_relay(host="0.0.0.0")


def test_two_relays_do_not_share_a_port(address):
    with pytest.raises(PortInUseError, match="cannot listen"):
        make_relay(port=int(address.rpartition(":")[2]))


@pytest.mark.parametrize("changes", [{"port": -1}, {"port": 1 << 16}, {"max_workers": 0}])
def test_impossible_settings_are_refused_by_name(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        make_relay(**changes)


JOIN = "/unspool.v1.Learner/Join"


@pytest.fixture
def trial(tmp_path: Path) -> Path:
    """Certificates of an authority, and in `relay` one for a relay on every address of this machine."""
    folder = trial_certificates(tmp_path / "certificates")
    served(folder / "relay", advertised_host("0.0.0.0", None), "localhost", authority=folder / "authority")
    return folder


def code_of_join(address: str, identity: Identity) -> grpc.StatusCode:
    port = address.rpartition(":")[2]
    with grpc.secure_channel(f"localhost:{port}", identity.channel_credentials()) as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(JOIN)(
                b"", metadata=[("authorization", "Bearer right")], timeout=PATIENCE_S, wait_for_ready=True
            )
        return error.value.code()


def test_a_relay_under_mutual_tls_asks_for_certificates_of_the_run(trial: Path, tmp_path: Path) -> None:
    relay = make_relay(trial / "relay", host="0.0.0.0", is_tls_mutual=True)
    relay._server.start()
    own, other = (
        Identity(trial / "worker"),
        Identity(signed(tmp_path / "other", run="other", authority=trial / "authority")),
    )
    viewer = Identity(trial / "viewer")
    try:
        # Before the relay has joined, it does not know its run, and nobody can join it.
        assert code_of_join(relay.address, own) is grpc.StatusCode.UNAVAILABLE
        assert code_of_join(relay.address, viewer) is grpc.StatusCode.PERMISSION_DENIED
        relay._access.run_id = "run"
        assert code_of_join(relay.address, own) is grpc.StatusCode.UNAVAILABLE
        assert code_of_join(relay.address, other) is grpc.StatusCode.PERMISSION_DENIED
    finally:
        relay._server.stop(0)


def test_mutual_tls_without_tls_is_refused(trial: Path) -> None:
    with pytest.raises(ValueError, match="client certificates need TLS"):
        make_relay(trial / "relay", is_tls_mutual=True)
    with pytest.raises(ValueError, match="client certificates need TLS"):
        make_relay(host="0.0.0.0", is_tls_mutual=True)
