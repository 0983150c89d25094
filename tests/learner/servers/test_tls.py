"""TLS on every port: who gets through, who does not, and what they are told."""

import contextlib
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from learner.main import serve
from protos.exit_codes import UsageError
from protos.rpc.access import Access
from protos.rpc.denials import HANDSHAKE_S, DenialReason, Denials
from protos.rpc.roles import Role
from protos.rpc.server import GrpcServer
from protos.rpc.server_tls import ServerTls
from protos.rpc.tls import Identity
from protos.unspool.v1 import admin_pb2, learner_pb2
from tests.certificates import served, signed, trial_certificates
from tests.learner.builders import TOKENS, gradient_body, make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner
from tests.support.clock import Clock
from tests.support.patience import PATIENCE_S


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trial_certificates(tmp_path_factory.mktemp("certificates") / "trial")


class TlsLearner(RunningLearner):
    """A learner that is asked with the files of one of its roles."""

    identity: Identity

    def channel(self, plane: str, identity: Identity | None = None) -> Any:
        credentials = (identity or self.identity).channel_credentials()
        self._channels.append(grpc.secure_channel(self.endpoints[plane], credentials))
        return self._channels[-1]

    def get(self, path: str, identity: Identity | None = None, **headers: str) -> tuple[int, bytes]:
        host, _, port = self.endpoints["http"].removeprefix("https://").rpartition(":")
        context = (identity or self.identity).client_context()
        with contextlib.closing(
            http.client.HTTPSConnection(host, int(port), timeout=PATIENCE_S, context=context)
        ) as connection:
            connection.request("GET", path, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.read()


def tls_learner(run_dir: Path, trial: Path, **changes: Any) -> TlsLearner:
    settings = make_settings(run_dir, directory=str(trial), **changes)
    learner = TlsLearner(settings)
    learner.identity = Identity(trial / "admin")
    return learner


@pytest.fixture
def running(tmp_path: Path, trial: Path) -> Iterator[TlsLearner]:
    with tls_learner(tmp_path, trial, mutual=True) as learner:
        yield learner


def test_a_run_continues_over_mutual_tls_as_it_does_without(running: TlsLearner) -> None:
    worker = HandWrittenWorker(running).enter()
    for grant in worker.grants(3).values():
        worker.push(grant, 1, 0, gradient_body(1.0))
    while worker.next("theta").outer_step < 1:
        pass
    assert running.status().outer_step == 1
    assert dict(running.status().access_denials) == {}


def test_without_mutual_tls_a_client_needs_only_the_authority(tmp_path: Path, trial: Path) -> None:
    (tmp_path / "ca.crt").write_bytes((trial / "admin" / "ca.crt").read_bytes())
    with tls_learner(tmp_path, trial, host="0.0.0.0", advertise="localhost") as learner:
        assert learner.endpoints["admin"].startswith("localhost:")
        stub = learner.channel("admin", Identity(tmp_path)).unary_unary("/unspool.v1.Admin/GetStatus")
        assert stub(b"", metadata=learner.metadata, timeout=PATIENCE_S)


def test_an_unencrypted_caller_gets_nothing(running: TlsLearner) -> None:
    with grpc.insecure_channel(running.endpoints["admin"]) as channel:
        call = channel.unary_unary("/unspool.v1.Admin/GetStatus")
        with pytest.raises(grpc.RpcError) as error:
            call(b"", metadata=running.metadata, timeout=PATIENCE_S)
    refused: Any = error.value
    assert refused.code() is grpc.StatusCode.UNAVAILABLE


def code_of(running: TlsLearner, method: str, identity: Identity, role: Role) -> grpc.StatusCode:
    """How a call of a role's token with some certificate ends."""
    plane = "learner" if ".Learner/" in method else "admin"
    metadata = [("authorization", f"Bearer {getattr(TOKENS, role)}")]
    with running.channel(plane, identity) as channel:
        try:
            channel.unary_unary(method)(b"", metadata=metadata, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            code: Any = error
            return code.code()
    return grpc.StatusCode.OK


LEAVE, STATUS, PAUSE = "/unspool.v1.Learner/Leave", "/unspool.v1.Admin/GetStatus", "/unspool.v1.Admin/Pause"
DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("method", "certificate", "token", "code"),
    [
        (LEAVE, Role.WORKER, Role.WORKER, grpc.StatusCode.OK),
        (STATUS, Role.VIEWER, Role.VIEWER, grpc.StatusCode.OK),
        (PAUSE, Role.ADMIN, Role.ADMIN, grpc.StatusCode.OK),
        (PAUSE, Role.VIEWER, Role.ADMIN, DENIED),
        (PAUSE, Role.ADMIN, Role.VIEWER, DENIED),
        (LEAVE, Role.VIEWER, Role.WORKER, DENIED),
        (STATUS, Role.WORKER, Role.ADMIN, DENIED),
    ],
)
def test_both_the_token_and_the_certificate_must_have_the_role(
    running: TlsLearner, trial: Path, method: str, certificate: Role, token: Role, code: grpc.StatusCode
) -> None:
    assert code_of(running, method, Identity(trial / certificate), token) is code
    assert running.status().access_denials["wrong_role"] == (code is DENIED)


def test_a_certificate_for_another_run_is_refused_and_counted(
    running: TlsLearner, trial: Path, tmp_path: Path
) -> None:
    folder = signed(tmp_path / "other", Role.ADMIN, run="other", authority=trial / "authority")
    assert code_of(running, STATUS, Identity(folder), Role.ADMIN) is DENIED
    assert running.status().access_denials["wrong_run"] == 1


@pytest.mark.parametrize("kind", ["expired", "of another authority", "none"])
def test_a_certificate_that_cannot_be_verified_ends_the_handshake_and_is_counted(
    trial: Path, tmp_path: Path, kind: str
) -> None:
    clock = Clock()
    refusals = Denials(clock)
    access = Access(TOKENS.by_role(), "test-run", refusals, is_mutual=True)
    tls = ServerTls(Identity(trial / "server"), refusals, is_mutual=True)
    server = GrpcServer("test", threads=2, access=access, tls=tls)
    address = f"localhost:{server.bind('127.0.0.1', 0)}"
    server.start()
    folder = signed(tmp_path / "bad", days=-1 if kind == "expired" else 2, authority=trial / "authority")
    if kind == "of another authority":
        folder = signed(tmp_path / "foreign")
        (folder / "ca.crt").write_bytes((trial / "worker" / "ca.crt").read_bytes())
    if kind == "none":
        (folder / "tls.crt").unlink()
    channel = grpc.secure_channel(address, Identity(folder).channel_credentials())
    with channel, pytest.raises(grpc.RpcError, match="failed to connect"):
        channel.unary_unary(LEAVE)(b"", timeout=PATIENCE_S)
    server.stop(0)
    clock.advance(2 * HANDSHAKE_S)
    assert refusals.counts()[DenialReason.TLS_HANDSHAKE] >= 1


def test_http_needs_a_viewer_under_tls_even_on_loopback(running: TlsLearner, trial: Path) -> None:
    viewer, worker = Identity(trial / "viewer"), Identity(trial / "worker")
    bearer = {"Authorization": f"Bearer {TOKENS.viewer}"}
    assert running.get("/status.json", viewer)[0] == 401
    assert running.get("/status.json", viewer, **bearer)[0] == 200
    assert running.get("/metrics", viewer, Authorization=f"Bearer {TOKENS.worker}")[0] == 403
    assert running.get("/status.json", worker, **bearer)[0] == 403
    assert running.get(f"/status.json?token={TOKENS.viewer}", viewer)[0] == 200


def test_probes_answer_callers_without_a_certificate(running: TlsLearner, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(running.identity.authority.read_bytes())
    stranger = Identity(tmp_path)
    assert running.get("/healthz", stranger)[0] == 200
    assert running.get("/status.json", stranger, Authorization=f"Bearer {TOKENS.admin}")[0] == 401
    assert running.status().access_denials["no_certificate"] == 1


def test_an_expired_certificate_is_counted_over_http(
    running: TlsLearner, trial: Path, tmp_path: Path
) -> None:
    expired = signed(tmp_path / "expired", Role.VIEWER, days=-1, authority=trial / "authority")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        running.get("/status.json", Identity(expired))
    assert running.status().access_denials["tls_handshake"] == 1
    events = running.ask("ListEvents", admin_pb2.ListEventsRequest()).events
    assert "certificate has expired" in next(one.text for one in events if one.kind == "access_refused")


def test_renewed_certificates_are_taken_over_without_a_restart(tmp_path: Path, trial: Path) -> None:
    (tmp_path / "run").mkdir()
    files = served(tmp_path / "server", "localhost", "127.0.0.1", authority=trial / "authority")
    settings = make_settings(tmp_path / "run", directory=str(tmp_path))
    learner = TlsLearner(settings)
    learner.identity = Identity(trial / "admin")
    with learner:
        before = ssl.get_server_certificate(address_of(learner, "admin"))
        served(tmp_path / "renewed", "localhost", "127.0.0.1", authority=trial / "authority")
        for name in ("tls.crt", "tls.key"):
            (tmp_path / "renewed" / name).replace(files / name)
        shown = {ssl.get_server_certificate(address_of(learner, plane)) for plane in ("admin", "http")}
    assert shown == {(files / "tls.crt").read_text()}
    assert before not in shown


def address_of(learner: TlsLearner, plane: str) -> tuple[str, int]:
    host, _, port = learner.endpoints[plane].removeprefix("https://").rpartition(":")
    return host, int(port)


@pytest.mark.parametrize(
    ("hosts", "days", "words"),
    [
        (("elsewhere.example",), 2, "not valid for '127.0.0.1'"),
        (("127.0.0.1",), -1, "certificate has expired"),
    ],
)
def test_a_certificate_that_callers_would_refuse_keeps_the_learner_from_starting(
    tmp_path: Path, trial: Path, hosts: tuple[str, ...], days: int, words: str
) -> None:
    served(tmp_path / "server", *hosts, authority=trial / "authority", days=days)
    with pytest.raises(UsageError, match=words):
        serve(make_settings(tmp_path, directory=str(tmp_path)))
    assert not (tmp_path / "term").exists()


def test_a_learner_binds_one_address_and_advertises_another(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, advertise="localhost")
    with RunningLearner(settings) as learner:
        assert {learner.endpoints[plane].rpartition(":")[0] for plane in ("learner", "admin", "http")} == {
            "localhost"
        }
        assert learner.learner.GetTheta(
            learner_pb2.GetThetaRequest(), metadata=learner.metadata, timeout=PATIENCE_S
        )
