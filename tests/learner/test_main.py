"""A learner's life as a whole: starting, resuming, and every way to end."""

import contextlib
import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from learner.coordination.core import LearnerCore
from learner.coordination.liveness import Liveness
from learner.errors import BrokenRunError, ConfigChangedError
from learner.main import serve
from learner.settings import LearnerSettings
from learner.storage.checkpoint import read_header
from learner.storage.run_directory import LearnerDirectory, Ports
from learner.training.outer import OuterLearner
from protos.exit_codes import PortInUseError, RunInUseError
from protos.unspool.v1 import admin_pb2, learner_pb2
from tests.learner.builders import EXPERIMENT_TOML, gradient_body, make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner
from tests.support.patience import PATIENCE_S

LEARNER_PROCESS = """
import sys
from pathlib import Path
from learner.main import serve
from tests.learner.builders import make_settings
if __name__ == "__main__":
    sys.exit(serve(make_settings(Path(sys.argv[1]))))
"""


def steps(worker: HandWrittenWorker, first: int, last: int, value: float = 1.0) -> str:
    """Push every lane for outer steps `first` to `last`; returns the digest of the theta reached."""
    lanes = worker.grants(3)
    for outer_step in range(first, last):
        for grant in lanes.values():
            worker.push(grant, outer_step + 1, outer_step, gradient_body(value + outer_step))
        announcement = worker.next("theta")
        while announcement.outer_step <= outer_step:
            announcement = worker.next("theta")
    return str(announcement.sha256)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_second_learner_on_the_run_directory_is_refused(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as first:
        with pytest.raises(RunInUseError, match="another learner holds this run directory"):
            serve(make_settings(tmp_path))
        assert first.status().term == 1


@pytest.mark.parametrize("port", ["port", "admin_port", "http_port"])
def test_a_taken_port_is_named(tmp_path: Path, taken_port: int, port: str) -> None:
    with pytest.raises(PortInUseError, match=f"cannot listen on 127.0.0.1:{taken_port}"):
        serve(make_settings(tmp_path, **{port: taken_port}))
    assert not (tmp_path / "term").exists()


@pytest.mark.parametrize("plane", ["port", "admin_port", "http_port"])
def test_two_learners_never_share_a_port(tmp_path: Path, plane: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with RunningLearner(make_settings(tmp_path / "a")) as first:
        name = {"port": "learner", "admin_port": "admin", "http_port": "http"}[plane]
        port = int(first.endpoints[name].rpartition(":")[2])
        with pytest.raises(PortInUseError, match=str(port)):
            serve(make_settings(tmp_path / "b", **{plane: port}))


def test_a_stopped_run_continues_where_it_was(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as first:
        reached = steps(HandWrittenWorker(first).enter(), 0, 3)
    assert first.exit_code == 0
    with RunningLearner(make_settings(tmp_path)) as second:
        status = second.status()
        worker = HandWrittenWorker(second).enter()
        grants = worker.grants(3)
    assert (status.term, status.outer_step, status.theta_sha256, status.inner_steps) == (2, 3, reached, 0)
    assert [list(grant.replay_outer_steps) for grant in grants.values()] == [[0, 1, 2]] * 3


def test_theta_after_a_resume_is_that_of_a_run_without_one(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    with RunningLearner(make_settings(tmp_path / "whole")) as whole:
        expected = steps(HandWrittenWorker(whole).enter(), 0, 5)
    with RunningLearner(make_settings(tmp_path / "halves")) as half:
        steps(HandWrittenWorker(half).enter(), 0, 2)
    with RunningLearner(make_settings(tmp_path / "halves")) as half:
        assert steps(HandWrittenWorker(half).enter(), 2, 5) == expected


def test_the_curves_continue_after_a_resume(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as first:
        steps(HandWrittenWorker(first).enter(), 0, 3)
    with RunningLearner(make_settings(tmp_path)) as second:
        assert json.loads(second.get("/series.json")[1])["outer_step"] == [1, 2, 3]


def test_a_run_that_is_finished_finishes_at_once_again(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, outer_steps=1)
    with RunningLearner(settings) as first:
        worker = HandWrittenWorker(first).enter()
        for grant in worker.grants(3).values():
            worker.push(grant, 1, 0, gradient_body(1.0))
        assert first.wait() == 0
    assert serve(settings) == 0


def test_another_configuration_does_not_resume_a_run(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as first:
        steps(HandWrittenWorker(first).enter(), 0, 1)
    with pytest.raises(ConfigChangedError, match="restore the old configuration"):
        serve(make_settings(tmp_path, config_sha256="d" * 64))


def test_what_kills_the_update_thread_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any) -> None:
        raise MemoryError("no room for theta")

    with RunningLearner(make_settings(tmp_path)) as running:
        worker = HandWrittenWorker(running).enter()
        lanes = worker.grants(3)
        monkeypatch.setattr(OuterLearner, "apply", explode)
        for grant in lanes.values():
            worker.push(grant, 1, 0, gradient_body(1.0))
        running.wait()
    assert isinstance(running.error, MemoryError)


def test_what_kills_any_other_thread_ends_the_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(_: Liveness) -> None:
        raise ZeroDivisionError("in the ticker")

    with RunningLearner(make_settings(tmp_path)) as running:
        monkeypatch.setattr(Liveness, "check", explode)
        running.wait()
    assert isinstance(running.error, ZeroDivisionError)


def test_a_lane_state_that_rotted_ends_the_learner_and_the_next_one_starts_before_it(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, every=100)
    with RunningLearner(settings) as running:
        worker = HandWrittenWorker(running).enter()
        lanes = worker.grants(3)
        for outer_step in range(7):
            push(worker, lanes, outer_step, with_state=outer_step == 6)
            if outer_step in (2, 6):
                running.ask("SaveCheckpoint", admin_pb2.SaveCheckpointRequest())
        (tmp_path / "lanes" / "0" / "seq-00000007.safetensors").write_bytes(b"rot")
        with pytest.raises(grpc.RpcError, match="expected"):
            worker.fetch_snapshot(0, 7, 10)
        running.wait()
    assert isinstance(running.error, BrokenRunError)
    with RunningLearner(settings) as running:
        assert running.status().outer_step == 3
        kinds = [event.kind for event in running.ask("ListEvents", admin_pb2.ListEventsRequest()).events]
    assert "checkpoint_passed_over" in kinds


def push(worker: HandWrittenWorker, lanes: dict[int, Any], outer_step: int, *, with_state: bool) -> None:
    """Push every lane for one outer step, each after its state, and wait for the next theta."""
    for lane, grant in lanes.items():
        state = f"state of lane {lane} at {outer_step + 1}".encode()
        snapshot = learner_pb2.Snapshot(
            lane=lane,
            fencing_token=grant.fencing_token,
            seq=outer_step + 1,
            bytes=len(state),
            sha256=hashlib.sha256(state).hexdigest(),
            transfer=1_000_000 + lane,
        )
        if with_state:
            worker.send(snapshot=snapshot)
            worker.send_body(state, snapshot.transfer)
        worker.push(grant, outer_step + 1, outer_step, gradient_body(1.0))
    while worker.next("theta").outer_step <= outer_step:
        pass


def test_three_updates_that_would_spoil_theta_fail_the_run_with_the_good_one_on_disk(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        worker = HandWrittenWorker(running).enter()
        lanes = worker.grants(3).values()
        reached = {}
        for outer_step, value in enumerate((1.0, 3e38, 3e38, 3e38)):
            for grant in lanes:
                worker.push(grant, outer_step + 1, outer_step, gradient_body(value))
            while outer_step < 3 and outer_step + 1 not in reached:
                theta = worker.next("theta")
                reached[theta.outer_step] = theta.sha256
        assert running.wait() == 65
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    assert newest.name == "step-00000004.safetensors"
    assert read_header(newest)["theta_sha256"] == reached[1]


def test_a_learner_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with RunningLearner(make_settings(tmp_path)) as running:
        steps(HandWrittenWorker(running).enter(), 0, 2)
        names = {thread.name for thread in set(threading.enumerate()) - before}
    assert {"update", "ticker", "disk-writer", "http", "session-w0#1"} <= names
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not left & names - {name for name in left if name.startswith("Thread-")}


def test_a_signal_ends_the_process_with_a_checkpoint_and_exit_code_0(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", LEARNER_PROCESS, str(tmp_path)])
    try:
        while not (tmp_path / "endpoints.json").exists():
            assert process.poll() is None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000000.safetensors"]
    assert not (tmp_path / "endpoints.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, 'learner.host = "0.0.0.0": beyond loopback connections must be encrypted'),
        ({"gather_s": -1.0}, r"gather_s=-1.0\): must not be negative"),
        ({"chunk_bytes": 1 << 22}, r"chunk_bytes=4194304\): must be 1 KiB to 2 MiB"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_settings_that_cannot_work_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_settings(tmp_path, **changes)


def test_the_settings_carry_the_experiment_as_text(tmp_path: Path) -> None:
    settings: LearnerSettings = make_settings(tmp_path)
    assert settings.experiment_toml == EXPERIMENT_TOML
    assert "secret-token" not in str(admin_pb2.Status(run=settings.run_id))


def test_a_restarted_learner_listens_where_it_did_before(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path)) as first:
        pass
    with RunningLearner(make_settings(tmp_path)) as second:
        planes = ("learner", "admin", "http")
        assert [second.endpoints[plane] for plane in planes] == [first.endpoints[plane] for plane in planes]


@pytest.mark.parametrize("plane", ["learner", "admin", "http"])
def test_a_port_that_was_taken_in_the_meantime_is_replaced(
    tmp_path: Path, taken_port: int, plane: str
) -> None:
    LearnerDirectory(tmp_path).remember_ports(Ports()._replace(**{plane: taken_port}))
    with RunningLearner(make_settings(tmp_path)) as running:
        assert not running.endpoints[plane].endswith(f":{taken_port}")
        assert running.status().term == 1


def test_a_learner_whose_lock_nobody_gets_is_not_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunningLearner(make_settings(tmp_path)) as running:
        assert running.get("/healthz")[0] == 200
        monkeypatch.setattr(LearnerCore, "responds", lambda self, timeout_s: False)
        assert running.get("/healthz")[0] == 503
