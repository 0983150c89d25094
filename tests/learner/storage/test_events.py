"""The event log: numbered events, bounded in memory, complete on disk."""

import json
from pathlib import Path

from tests.learner.builders import open_log


def test_events_are_numbered_and_read_from_a_number_on(tmp_path: Path) -> None:
    log = open_log(tmp_path / "events.jsonl", wall_clock=lambda: 5.0)
    for kind in ("one", "two", "three"):
        log.add("info", kind, "text")
    assert [(event.number, event.kind) for event in log.after(1, limit=1)] == [(2, "two")]


def test_event_numbers_continue_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = open_log(path)
    first.add("info", "one", "text")
    first.close()
    second = open_log(path)
    second.add("error", "two", "text")
    assert [(event.number, event.kind) for event in second.latest(5)] == [(1, "one"), (2, "two")]


def test_an_event_cut_off_by_a_crash_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"number": 1, "kind": "one"}\n{"number": 2, "ki')
    log = open_log(path)
    log.add("info", "three", "text")
    log.close()
    assert [event.kind for event in open_log(path).latest(5)] == ["one", "three"]


def test_events_in_memory_are_bounded_and_on_disk_they_are_not(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = open_log(path)
    for number in range(1100):
        log.add("info", "kind", str(number))
    assert len(log.after(0, limit=5000)) == 1000
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()][:2] == ["0", "1"]
