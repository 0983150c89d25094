"""The operational tables: defaults that depend on other keys, and the rules that name a broken key."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import pytest

from learner.scale import Scale, WorkerRange
from learner.tables import AggregationTable, CheckpointTable, LivenessTable, WorkersTable, require
from unspool.config.config_error import ConfigError

Mode: TypeAlias = Literal["sync", "async", "quorum"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("sync", {"max_staleness": 0, "credits": 1, "quorum": 1.0, "grace_s": 0.0, "on_rollback": "restore"}),
        ("async", {"max_staleness": 5, "credits": 2, "quorum": 1.0, "grace_s": 0.0, "on_rollback": "keep"}),
        (
            "quorum",
            {"max_staleness": 1, "credits": 2, "quorum": 0.75, "grace_s": None, "on_rollback": "keep"},
        ),
    ],
)
def test_defaults_depend_on_the_mode(mode: Mode, expected: dict[str, Any]) -> None:
    settled = dataclasses.asdict(AggregationTable(4, mode).settled())
    assert settled == {"lanes": 4, "mode": mode, "batch": 4, "staleness_weighting": "none"} | expected


def test_settled_values_are_settled() -> None:
    settled = AggregationTable(4, "quorum", grace_s=2.0).settled()
    assert settled.settled() == settled


@pytest.mark.parametrize(
    ("table", "key"),
    [
        (lambda: AggregationTable(0), "lanes"),
        (lambda: AggregationTable(4097), "lanes"),
        (lambda: AggregationTable(4, batch=2), "batch"),
        (lambda: AggregationTable(4, "async", batch=0), "batch"),
        (lambda: AggregationTable(4, "async", batch=9), "batch"),
        (lambda: AggregationTable(4, max_staleness=1), "max_staleness"),
        (lambda: AggregationTable(4, "async", max_staleness=-1), "max_staleness"),
        (lambda: AggregationTable(4, "async", quorum=0.5), "quorum"),
        (lambda: AggregationTable(4, "quorum", quorum=0.0), "quorum"),
        (lambda: AggregationTable(4, "async", grace_s=1.0), "grace_s"),
        (lambda: AggregationTable(4, staleness_weighting="inverse"), "staleness_weighting"),
        (lambda: AggregationTable(4, on_rollback="keep"), "on_rollback"),
        (lambda: WorkersTable(count=-1), "count"),
        (lambda: WorkersTable(count=9, max_count=8), "count"),
        (lambda: WorkersTable(count=2, min_count=3), "min_count"),
        (lambda: WorkersTable(num_cpus=-1.0), "num_cpus"),
        (lambda: WorkersTable(resources={"tpu": -1}), "resources"),
        (lambda: WorkersTable(resources={"tpu": True}), "resources"),
        (lambda: WorkersTable(num_gpus=1.0, devices=2), "devices"),
        (lambda: CheckpointTable(every=0), "every"),
        (lambda: CheckpointTable(keep=0), "keep"),
        (lambda: CheckpointTable(give_up_s=0.0), "give_up_s"),
        (lambda: LivenessTable(heartbeat_s=0.0), "heartbeat_s"),
        (lambda: LivenessTable(patience=1), "patience"),
        (lambda: LivenessTable(orphan_ttl_s=0.0), "orphan_ttl_s"),
    ],
)
def test_a_broken_rule_names_its_key(table: Callable[[], object], key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        table()
    assert key in [problem.key.partition(".")[2] for problem in raised.value.problems]


def test_an_error_lists_every_broken_rule_with_the_value() -> None:
    with pytest.raises(ConfigError) as raised:
        require(
            "checkpoint",
            CheckpointTable(),
            ("every", False, "is wrong"),
            ("keep", True, "is right"),
            ("give_up_s", False, "is wrong too"),
        )
    assert str(raised.value) == "checkpoint.every = 20: is wrong\ncheckpoint.give_up_s = 3600.0: is wrong too"


def test_the_digest_omits_keys_that_older_runs_did_not_have() -> None:
    assert set(AggregationTable(4).deciding()) == {
        "lanes",
        "mode",
        "batch",
        "max_staleness",
        "credits",
        "quorum",
        "grace_s",
    }


@pytest.mark.parametrize(
    "changes", [{"staleness_weighting": "inverse"}, {"on_rollback": "reset"}, {"max_staleness": 6}]
)
def test_every_key_that_changes_theta_changes_the_digest(changes: dict[str, Any]) -> None:
    assert AggregationTable(4, "async", **changes).deciding() != AggregationTable(4, "async").deciding()


def test_an_explicit_default_does_not_change_the_digest() -> None:
    explicit = AggregationTable(4, "async", batch=4, max_staleness=5, credits=2, on_rollback="keep")
    assert explicit.deciding() == AggregationTable(4, "async").deciding()


def test_the_grace_period_of_a_quorum_is_part_of_the_digest_only_if_it_is_set() -> None:
    assert "grace_s" not in AggregationTable(4, "quorum").deciding()
    assert AggregationTable(4, "quorum", grace_s=2.0).deciding()["grace_s"] == 2.0


def test_a_minimum_turns_the_number_of_workers_into_a_range() -> None:
    assert WorkersTable(count=3).scale == Scale(3)
    assert WorkersTable(count=3, min_count=1, max_count=8).scale == Scale(3, WorkerRange(1, 8))


@pytest.mark.parametrize(
    ("table", "platform", "devices"),
    [
        (WorkersTable(), "cpu", 1),
        (WorkersTable(num_gpus=0.5), "cuda", 1),
        (WorkersTable(num_gpus=4.0), "cuda", 4),
        (WorkersTable(num_gpus=4.0, platform="cpu"), "cpu", 1),
        (WorkersTable(num_gpus=4.0, devices=2, platform="rocm"), "rocm", 2),
    ],
)
def test_platform_and_devices_follow_the_requested_gpus(
    table: WorkersTable, platform: str, devices: int
) -> None:
    assert (table.settled().platform, table.settled().devices) == (platform, devices)


def test_a_lease_outlives_the_missed_heartbeats() -> None:
    assert LivenessTable(heartbeat_s=2.0, patience=3).lease_ttl_s == 12.0
