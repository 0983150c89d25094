import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.patience import PATIENCE_S
from tests.workers.cluster import straight_loop
from tests.workers.fake_learner import FakeLearner
from workers.settings import WorkerSettings
from workers.unrolling.worker import UnrollWorker


def pytest_itemcollected(item: pytest.Item) -> None:
    """Turn warnings into errors."""
    # Ray forks to start its processes, of which JAX warns in any process that has imported it; they execute
    # another program at once.
    fork = r"ignore:os\.fork\(\) was called\..*JAX is multithreaded:RuntimeWarning"
    filters = ["error", fork] if item.get_closest_marker("ray") else ["error"]
    item.add_marker(pytest.mark.filterwarnings(*filters))


class RunningWorker:
    """A worker in a thread of the test process."""

    def __init__(self, learner: FakeLearner, **settings: object) -> None:
        self.worker = UnrollWorker(
            WorkerSettings(learner="fake:0", token="token", name="w0", **settings), learner
        )
        self._codes: list[int] = []
        self._thread = threading.Thread(target=lambda: self._codes.append(self.worker.run()), name="worker")
        self._thread.start()

    def exit_code(self) -> int:
        self._thread.join(PATIENCE_S)
        assert self._codes, "the worker is still running:\n" + self.worker.stack()
        return self._codes[0]


@pytest.fixture
def start() -> Iterator[Callable[..., RunningWorker]]:
    """Return a function that starts workers, which are drained at the end of the test."""
    running: list[RunningWorker] = []

    def start_one(learner: FakeLearner, **settings: object) -> RunningWorker:
        running.append(RunningWorker(learner, **settings))
        return running[-1]

    yield start_one
    for worker in running:
        worker.worker.drain("the test is over")
        worker.exit_code()


@pytest.fixture(scope="session")
def expected() -> str:
    """Return the expected final digest of theta."""
    return straight_loop()
