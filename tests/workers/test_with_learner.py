"""Workers and a real learner over loopback: theta is what one process alone would have made."""

from collections.abc import Iterable

import pytest

from protos.exit_codes import ExitCode
from protos.unspool.v1 import learner_pb2
from tests.workers.cluster import TOKEN, Cluster
from tests.workers.watched_stream import WatchedStream
from workers.session.client import LearnerClient, LearnerStream


class DrainingClient(LearnerClient):
    """Drains its worker, and starts another one, when some theta is announced."""

    def __init__(self, cluster: Cluster, address: str, outer_step: int) -> None:
        super().__init__(address, TOKEN)
        self._cluster = cluster
        self._outer_step = outer_step

    def open_session(
        self, session_secret: str, outgoing: Iterable[learner_pb2.WorkerMessage]
    ) -> LearnerStream:
        return WatchedStream(super().open_session(session_secret, outgoing), self._look)

    def _look(self, message: learner_pb2.LearnerMessage) -> None:
        if message.theta.outer_step == self._outer_step:
            self._cluster.start_worker()
            self._cluster.workers[0].drain("replaced")


class BreakingClient(LearnerClient):
    """Its first five streams break after some messages."""

    def __init__(self, address: str) -> None:
        super().__init__(address, TOKEN)
        self._breaks = iter((2, 5, 9, 6, 12))

    def open_session(
        self, session_secret: str, outgoing: Iterable[learner_pb2.WorkerMessage]
    ) -> LearnerStream:
        stream = super().open_session(session_secret, outgoing)
        left = iter(range(next(self._breaks, 10**6)))
        return WatchedStream(stream, lambda message: stream.cancel() if next(left, None) is None else None)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_theta_does_not_depend_on_the_number_of_workers(tmp_path, expected, workers):
    cluster = Cluster(tmp_path, count=workers)
    for _ in range(workers):
        cluster.start_worker()
    status = cluster.finish()
    assert (status["state"], status["theta_sha256"]) == ("FINISHED", expected)
    assert set(cluster.codes.values()) == {ExitCode.OK}


def test_theta_does_not_depend_on_a_worker_being_replaced(tmp_path, expected):
    cluster = Cluster(tmp_path)
    cluster.start_worker(DrainingClient(cluster, cluster.address, outer_step=4))
    assert cluster.finish()["theta_sha256"] == expected
    assert cluster.codes == {"w0": ExitCode.OK, "w1": ExitCode.OK}


def test_theta_does_not_depend_on_streams_that_break(tmp_path, expected):
    cluster = Cluster(tmp_path, count=2)
    cluster.start_worker(BreakingClient(cluster.address))
    cluster.start_worker()
    assert cluster.finish()["theta_sha256"] == expected


def test_in_async_the_run_ends_as_well(tmp_path):
    cluster = Cluster(tmp_path, mode="async", max_staleness=2, credits=2, count=2)
    cluster.start_worker()
    cluster.start_worker()
    assert cluster.finish()["state"] == "FINISHED"


def test_a_wrong_token_is_refused(tmp_path):
    cluster = Cluster(tmp_path)
    cluster.start_worker(cluster.client(token="another"))
    cluster.start_worker()
    cluster.finish()
    assert cluster.codes == {"w0": ExitCode.REFUSED, "w1": ExitCode.OK}
