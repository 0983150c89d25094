"""A real learner, a relay over loopback, and real workers behind it: theta is what it is without a relay."""

import threading
from collections.abc import Iterable, Iterator

import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1 import learner_pb2
from tests.support.patience import PATIENCE_S
from tests.workers.cluster import TOKEN, Cluster
from tests.workers.watched_stream import WatchedStream
from workers.relay.relay import Relay, RelaySettings
from workers.session.client import LearnerClient, LearnerStream
from workers.settings import WorkerSettings


class RunningRelay:
    """A relay in a thread of the test's process."""

    def __init__(
        self,
        cluster: Cluster,
        name: str = "relay",
        *,
        learner: str = "",
        client: LearnerClient | None = None,
    ) -> None:
        upstream = WorkerSettings(learner=learner or cluster.address, token=TOKEN, name=name)
        self.relay = Relay(RelaySettings(upstream), client or LearnerClient(upstream.learner, TOKEN))
        self.address = self.relay.address
        self._codes: list[int] = []
        self._thread = threading.Thread(target=lambda: self._codes.append(self.relay.run()), name=name)
        self._thread.start()

    def exit_code(self) -> int:
        self._thread.join(PATIENCE_S)
        assert self._codes, "the relay is still running"
        return self._codes[0]


class WatchingClient(LearnerClient):
    """Does something, once, when some theta is announced."""

    def __init__(self, address: str, at_step: int) -> None:
        super().__init__(address, TOKEN)
        self._at_step = at_step
        self._is_done = False

    def open_session(
        self, session_secret: str, outgoing: Iterable[learner_pb2.WorkerMessage]
    ) -> LearnerStream:
        self.stream = super().open_session(session_secret, outgoing)
        return WatchedStream(self.stream, self._look)

    def act(self) -> None:
        raise NotImplementedError

    def _look(self, message: learner_pb2.LearnerMessage) -> None:
        if message.theta.outer_step >= self._at_step and not self._is_done:
            self._is_done = True
            self.act()


class DyingClient(WatchingClient):
    """Its worker's session crashes without a word of farewell."""

    def act(self) -> None:
        self.close()
        raise RuntimeError("as if killed")


class BreakingClient(WatchingClient):
    def __init__(self, address: str) -> None:
        super().__init__(address, at_step=4)

    def act(self) -> None:
        self.stream.cancel()


class DrainingClient(WatchingClient):
    def __init__(self, relay: RunningRelay, at_step: int) -> None:
        super().__init__(relay.address, at_step)
        self._relay = relay

    def act(self) -> None:
        self._relay.relay.drain("SIGTERM")


@pytest.fixture
def relayed(tmp_path, request) -> Iterator[Cluster]:
    """A cluster whose two workers are behind one relay; ends with no thread of the relay left."""
    changes = getattr(request, "param", {})
    cluster = Cluster(tmp_path, **changes)
    relay = RunningRelay(cluster)
    for _ in range(2):
        cluster.start_worker(LearnerClient(relay.address, TOKEN))
    yield cluster
    assert relay.exit_code() == ExitCode.OK
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("relay")]


def test_theta_is_the_same_behind_a_relay(relayed, expected):
    assert relayed.finish()["theta_sha256"] == expected
    assert relayed.codes == {"w0": ExitCode.OK, "w1": ExitCode.OK}


ASYNC = {"mode": "async", "max_staleness": 4, "credits": 2, "batch": 4}


@pytest.mark.parametrize("relayed", [ASYNC], indirect=True)
def test_in_async_the_run_ends_as_well(relayed):
    status = relayed.finish()
    assert status["state"] == "FINISHED"
    assert relayed.codes == {"w0": ExitCode.OK, "w1": ExitCode.OK}


def test_theta_does_not_depend_on_a_worker_that_dies_behind_a_relay(tmp_path, expected):
    cluster = Cluster(tmp_path, heartbeat_s=0.5, patience=6)
    relay = RunningRelay(cluster)
    cluster.start_worker(DyingClient(relay.address, at_step=3))
    cluster.start_worker(LearnerClient(relay.address, TOKEN))
    assert cluster.finish()["theta_sha256"] == expected
    assert cluster.codes == {"w0": ExitCode.FAILED, "w1": ExitCode.OK}
    assert relay.exit_code() == ExitCode.OK


def test_theta_does_not_depend_on_a_relay_whose_stream_breaks(tmp_path, expected):
    cluster = Cluster(tmp_path)
    relay = RunningRelay(cluster, client=BreakingClient(cluster.address))
    cluster.start_worker(LearnerClient(relay.address, TOKEN))
    assert cluster.finish()["theta_sha256"] == expected
    assert relay.exit_code() == ExitCode.OK


def test_a_drained_relay_takes_its_workers_along(tmp_path, expected):
    cluster = Cluster(tmp_path)
    leaving = RunningRelay(cluster)
    cluster.start_worker(DrainingClient(leaving, at_step=3))
    relay = RunningRelay(cluster, "another")
    cluster.start_worker(LearnerClient(relay.address, TOKEN))
    assert cluster.finish()["theta_sha256"] == expected
    assert (leaving.exit_code(), relay.exit_code()) == (ExitCode.OK, ExitCode.OK)


def test_a_relay_behind_a_relay_changes_nothing(tmp_path, expected):
    cluster = Cluster(tmp_path)
    outer = RunningRelay(cluster)
    inner = RunningRelay(cluster, "inner", learner=outer.address)
    cluster.start_worker(LearnerClient(inner.address, TOKEN))
    assert cluster.finish()["theta_sha256"] == expected
    assert (outer.exit_code(), inner.exit_code()) == (ExitCode.OK, ExitCode.OK)


def test_a_relay_with_a_wrong_token_is_refused(tmp_path):
    cluster = Cluster(tmp_path)
    relay = RunningRelay(cluster, client=cluster.client(token="another"))
    assert relay.exit_code() == ExitCode.REFUSED
    cluster.start_worker()
    cluster.finish()
