"""The operator's plane and the HTTP plane of a learner that runs."""

import csv
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos.unspool.v1 import admin_pb2
from tests.learner.builders import TOKENS, gradient_body, make_settings
from tests.learner.running import HandWrittenWorker, RunningLearner
from tests.support.patience import PATIENCE_S


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningLearner]:
    with RunningLearner(make_settings(tmp_path)) as learner:
        yield learner


@pytest.fixture
def worker(running: RunningLearner) -> HandWrittenWorker:
    return HandWrittenWorker(running).enter()


def one_step(worker: HandWrittenWorker, outer_step: int = 0) -> None:
    """Push every lane and wait for the next theta."""
    worker.lanes = worker.grants(3) if outer_step == 0 else worker.lanes
    for grant in worker.lanes.values():
        worker.push(grant, outer_step + 1, outer_step, gradient_body(1.0))
    while worker.next("theta").outer_step <= outer_step:
        pass


def test_the_operator_sees_workers_lanes_and_endpoints(
    running: RunningLearner, worker: HandWrittenWorker
) -> None:
    worker.grants(3)
    status = running.status()
    assert (status.state, status.term, [one.name for one in status.workers]) == ("RUNNING", 1, ["w0"])
    assert [lane.estimator for lane in status.lanes] == ["TruncatedPES"] * 3
    assert dict(status.endpoints) == {
        plane: running.endpoints[plane] for plane in ("learner", "admin", "http")
    }


def test_scaling_is_remembered_after_a_restart(running: RunningLearner, tmp_path: Path) -> None:
    assert running.ask("Scale", admin_pb2.ScaleRequest(workers=4)).workers_before == 1
    running.ask("Stop", admin_pb2.StopRequest(now=True))
    running.wait()
    with RunningLearner(make_settings(tmp_path)) as again:
        assert again.status().workers_desired == 4


def test_a_range_of_workers_is_remembered_after_a_restart(running: RunningLearner, tmp_path: Path) -> None:
    bounds = admin_pb2.WorkersRange(min=2, max=3)
    reply = running.ask("Scale", admin_pb2.ScaleRequest(range=bounds))
    assert (reply.workers_before, reply.workers) == (1, 2)
    running.ask("Stop", admin_pb2.StopRequest(now=True))
    running.wait()
    with RunningLearner(make_settings(tmp_path)) as again:
        status = again.status()
    assert (status.workers_min, status.workers_desired, status.workers_max) == (2, 2, 3)


def test_scaling_too_far_is_an_invalid_argument(running: RunningLearner) -> None:
    with pytest.raises(grpc.RpcError, match=r"must be from 0 to 8 \(workers\.max_count\)"):
        running.ask("Scale", admin_pb2.ScaleRequest(workers=9))


def test_a_pause_holds_theta_until_the_run_is_resumed(
    running: RunningLearner, worker: HandWrittenWorker
) -> None:
    running.ask("Pause", admin_pb2.PauseRequest())
    assert running.status().state == "PAUSED"
    for grant in worker.grants(3).values():
        worker.push(grant, 1, 0, gradient_body(1.0))
        worker.next("verdict")
    assert running.status().outer_step == 0
    running.ask("Resume", admin_pb2.ResumeRequest())
    assert worker.next("theta").outer_step == 1


def test_draining_an_unknown_worker_is_not_found(running: RunningLearner) -> None:
    with pytest.raises(grpc.RpcError, match="no such worker; there are: none"):
        running.ask("Drain", admin_pb2.DrainRequest(worker_name="w9"))


def test_a_checkpoint_is_written_on_request(running: RunningLearner, worker: HandWrittenWorker) -> None:
    one_step(worker)
    info = running.ask("SaveCheckpoint", admin_pb2.SaveCheckpointRequest())
    assert Path(info.path).name == "step-00000001.safetensors"
    assert info.theta_sha256 == running.status().theta_sha256
    assert running.status().checkpoint.outer_step == 1


def test_events_are_listed_from_a_number_on(running: RunningLearner, worker: HandWrittenWorker) -> None:
    worker.next("theta")
    events = running.ask("ListEvents", admin_pb2.ListEventsRequest(after=0)).events
    assert [event.kind for event in events] == ["learner_started", "worker_joined"]
    assert len(running.ask("ListEvents", admin_pb2.ListEventsRequest(after=1, limit=5)).events) == 1


def test_a_watcher_sees_the_status_until_the_learner_ends(running: RunningLearner) -> None:
    request = admin_pb2.WatchStatusRequest(interval_s=0.1)
    states = running.admin.WatchStatus(request, metadata=running.metadata, timeout=PATIENCE_S)
    assert next(states).state == "WAITING_FOR_WORKERS"
    running.ask("Stop", admin_pb2.StopRequest(now=True))
    assert [status.state for status in states][-1] == "STOPPED"


def test_http_shows_the_same_status(running: RunningLearner, worker: HandWrittenWorker) -> None:
    one_step(worker)
    code, body = running.get("/status.json")
    status, expected = json.loads(body), running.status()
    assert code == 200
    assert (status["outer_step"], status["theta_sha256"], status["state"]) == (
        1,
        expected.theta_sha256,
        "RUNNING",
    )
    assert status["lanes"][2]["worker"] == "w0"


def test_the_curves_have_a_point_for_each_update(running: RunningLearner, worker: HandWrittenWorker) -> None:
    for outer_step in range(2):
        one_step(worker, outer_step)
    series = json.loads(running.get("/series.json")[1])
    assert (series["outer_step"], series["loss"]) == ([1, 2], [2.0, 2.0])


def test_the_page_needs_nothing_from_elsewhere(running: RunningLearner) -> None:
    code, page = running.get("/")
    assert code == 200
    assert b"http://" not in page
    assert b"https://" not in page
    assert b"plotly.min.js" in page
    assert running.get("/plotly.min.js")[0] == 200


def test_the_pages_script_is_valid(running: RunningLearner, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    page = running.get("/")[1].decode()
    script = tmp_path / "page.js"
    script.write_text(page.rpartition("<script>")[2].partition("</script>")[0])
    assert subprocess.run([node, "--check", str(script)], check=False).returncode == 0


def test_metrics_and_probes_answer(running: RunningLearner) -> None:
    assert b"unspool_outer_step 0.0" in running.get("/metrics")[1]
    assert running.get("/healthz") == (200, b'{"alive":true}')
    assert json.loads(running.get("/readyz")[1]) == {"ready": True, "reasons": []}


def test_events_are_shown_over_http(running: RunningLearner) -> None:
    assert json.loads(running.get("/events.json")[1])[0]["kind"] == "learner_started"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_that_was_made_to_point_here_is_refused(running: RunningLearner, host: str) -> None:
    assert running.get("/status.json", Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "[::1]:80"])
def test_this_machine_may_ask_under_its_own_names(running: RunningLearner, host: str) -> None:
    assert running.get("/status.json", Host=host)[0] == 200


def test_a_websocket_is_no_way_around(running: RunningLearner) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    code, _ = running.get("/status.json", Host="evil.example", **upgrade)
    assert code == 421


def test_http_only_reads(running: RunningLearner) -> None:
    assert running.get("/status.json", method="POST")[0] == 405


@pytest.mark.parametrize("headers", [{"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}])
def test_a_request_with_a_body_is_refused_before_it_is_read(
    running: RunningLearner, headers: dict[str, str]
) -> None:
    assert running.get("/status.json", **headers)[0] == 413
    assert running.status().access_denials["too_large"] == 1


def test_headers_beyond_the_limit_are_refused(running: RunningLearner) -> None:
    try:
        code = running.get("/status.json", Ballast="x" * (1 << 20))[0]
    except ConnectionError:
        code = 400  # hung up on before all of it was sent
    assert code == 400


def test_the_worker_may_not_read_the_pages(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path, host="0.0.0.0", insecure=True)) as running:
        running.endpoints["http"] = f"127.0.0.1:{running.endpoints['http'].rpartition(':')[2]}"
        code, text = running.get("/status.json", Authorization=f"Bearer {TOKENS.worker}")
        assert (code, b"needs the role viewer" in text) == (403, True)
        assert running.get("/status.json", Authorization=f"Bearer {TOKENS.viewer}")[0] == 200


def test_beyond_loopback_http_needs_the_token_but_for_the_probes(tmp_path: Path) -> None:
    with RunningLearner(make_settings(tmp_path, host="0.0.0.0", insecure=True)) as running:
        running.endpoints["http"] = f"127.0.0.1:{running.endpoints['http'].rpartition(':')[2]}"
        answers = {
            path: running.get(path)[0]
            for path in ("/status.json", "/", "/status.json?token=wrong", "/healthz", "/readyz")
        }
        with_token = running.get("/status.json?token=secret-token")[0]
        with_header = running.get("/status.json", Authorization="Bearer secret-token")[0]
    assert list(answers.values()) == [401, 401, 401, 200, 200]
    assert (with_token, with_header) == (200, 200)


def test_the_table_of_updates_is_on_disk_at_the_end(
    running: RunningLearner, worker: HandWrittenWorker
) -> None:
    for outer_step in range(2):
        one_step(worker, outer_step)
    running.ask("Stop", admin_pb2.StopRequest(now=True))
    running.wait()
    with (running.directory.metrics / "outer.csv").open(newline="") as file:
        assert [row["outer_step"] for row in csv.DictReader(file)] == ["1", "2"]


def test_the_last_status_is_left_behind(running: RunningLearner) -> None:
    running.ask("Stop", admin_pb2.StopRequest(now=True))
    running.wait()
    left = json.loads(running.directory.status.read_text())
    assert (left["state"], left["waiting_for"]) == ("STOPPED", "")
