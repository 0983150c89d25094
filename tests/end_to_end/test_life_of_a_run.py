"""A run is watched, scaled, stopped and resumed from the command line."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.end_to_end.launched import answer, launched, processes_naming, unspool
from tests.support.experiments import DIGITS, toml_of

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

STATUS_KEYS = {
    "run", "state", "waiting_for", "outer_step", "outer_steps", "loss", "theta_sha256", "updates_per_s",
    "inner_steps_per_s", "staleness", "workers_desired", "workers", "lanes", "endpoints",
}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(toml_of(DIGITS, "outer_steps=100000"))
    return path


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())


def test_a_run_is_watched_scaled_and_stopped(config: Path, tmp_path: Path) -> None:
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "2") as run:
        status = run.wait_for(lambda s: s["outer_step"] >= 3 and len(s["workers"]) == 2)
        assert set(status) >= STATUS_KEYS
        assert sorted(lane for worker in status["workers"] for lane in worker["lanes"]) == [0, 1, 2, 3]
        http = status["endpoints"]["http"].removeprefix("http://").rstrip("/")
        assert set(json.loads(page(f"http://{http}/status.json"))) >= STATUS_KEYS
        assert page(f"http://{http}/healthz")
        assert page(f"http://{http}/readyz")
        assert "unspool_updates_total" in page(f"http://{http}/metrics")
        assert "<html" in page(f"http://{http}/").lower()

        answer("scale", run.run_dir, "3")
        joined = run.wait_for(lambda s: sum(bool(w["lanes"]) for w in s["workers"]) == 3)
        assert {w["name"] for w in joined["workers"]} == {"w0", "w1", "w2"}
        answer("scale", run.run_dir, "1")
        alone = run.wait_for(lambda s: [w["name"] for w in s["workers"]] == ["w0"])
        assert run.wait_for_step(alone["outer_step"] + 2)["workers"][0]["lanes"] == [0, 1, 2, 3]

        assert len(answer("workers", run.run_dir)) == 1
        assert len(answer("lanes", run.run_dir)) == 4
        answer("stop", run.run_dir)
        assert run.finish() == 0, run.output()
        newest = answer("checkpoint", "list", run.run_dir)[-1]
        assert newest["outer_step"] >= alone["outer_step"]
        assert unspool("checkpoint", "verify", run.run_dir).returncode == 0
        assert processes_naming(str(run.run_dir)) == []


def test_ctrl_c_leaves_a_checkpoint_and_no_process(config: Path, tmp_path: Path) -> None:
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "2") as run:
        run.wait_for_step(2)
        run.process.send_signal(signal.SIGINT)
        run.finish()
        assert answer("checkpoint", "list", run.run_dir)[-1]["outer_step"] >= 2
        assert processes_naming(str(run.run_dir)) == []


def test_a_detached_run_continues_by_itself_until_stopped(config: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert answer("launch", config, "--run-dir", run_dir, "--backend", "local", "--workers", "1", "--detach")
    try:
        assert answer("status", run_dir)["state"] in ("RUNNING", "WAITING_FOR_WORKERS")
    finally:
        answer("stop", run_dir)
    os.sched_yield()
    assert_ends(str(run_dir))


def assert_ends(text: str) -> None:
    import time

    give_up_at = time.monotonic() + 60
    while processes_naming(text):
        assert time.monotonic() < give_up_at, processes_naming(text)
        time.sleep(0.2)


def test_a_second_launch_on_a_run_directory_in_use_is_refused(config: Path, tmp_path: Path) -> None:
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "1") as run:
        before = run.wait_for_step(1)
        second = unspool("launch", config, "--run-dir", run.run_dir, "--backend", "local")
        assert second.returncode == 73
        assert str(run.run_dir) in second.stderr + second.stdout
        assert run.wait_for_step(before["outer_step"] + 1)["state"] == "RUNNING"


def test_a_corrupt_newest_checkpoint_is_passed_over_and_named_in_the_events(tmp_path: Path) -> None:
    config = tmp_path / "digits.toml"
    config.write_text(toml_of(DIGITS, "outer_steps=20"))
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "1") as run:
        assert run.finish() == 0, run.output()
        digest = run.digest()
        newest = sorted((run.run_dir / "checkpoints").glob("*.safetensors"))[-1]
        damaged = bytearray(newest.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        newest.write_bytes(damaged)
        assert unspool("checkpoint", "verify", run.run_dir).returncode != 0
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "1") as again:
        assert again.finish() == 0, again.output()
        assert again.digest() == digest
        assert newest.name in (again.run_dir / "logs/events.jsonl").read_text()


def test_async_mode_trains_to_the_end(tmp_path: Path) -> None:
    config = tmp_path / "digits.toml"
    config.write_text(toml_of(DIGITS, "outer_steps=20", "aggregation.mode=async"))
    with launched(config, tmp_path / "run", "--backend", "local", "--workers", "2") as run:
        assert run.finish() == 0, run.output()
        assert answer("checkpoint", "list", run.run_dir)[-1]["outer_step"] == 20
