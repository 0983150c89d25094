import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.processes import FaultyRun
from workers.bootstrap import Devices, environment


@pytest.fixture(autouse=True, scope="session")
def _processes_share_a_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Share a compilation cache between processes, most of which run for seconds only."""
    cache = environment(Devices(cpu_threads=1), tmp_path_factory.mktemp("compiled"))
    for name, value in cache.items():
        os.environ.setdefault(name, value)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., FaultyRun]]:
    """Return a function that creates a run of a configuration; its processes are killed after the test."""
    made: list[FaultyRun] = []

    def make(config: str, name: str = "run", host: str = "127.0.0.1") -> FaultyRun:
        made.append(FaultyRun(tmp_path / name, config, host))
        return made[-1]

    yield make
    for run in made:
        run.end()
