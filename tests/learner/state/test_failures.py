"""Failed estimates: which are identical, and which lanes and hosts they count against."""

import pytest

from learner.state.failures import Failure, FailureLog, digest_of
from protos.unspool.v1 import common_pb2
from protos.unspool.v1.learner_pb2 import LaneFailure

TRACEBACK = """Traceback (most recent call last):
  File "/home/anna/task.py", line 9, in loss
ValueError: lane 3 at 0x7f3a has norm 1.5e9"""


def failure(lane: int = 0, seq: int = 1, host: str = "a", digest: str = "d") -> Failure:
    return Failure(lane, seq, host, digest, traceback="")


def log_of(*failures: Failure) -> FailureLog:
    log = FailureLog()
    for one in failures:
        log.add(one)
    return log


@pytest.mark.parametrize(
    ("old", "new"),
    [("/home/anna/", "/srv/job/"), ("lane 3", "lane 11"), ("0x7f3a", "0x2b"), ("1.5e9", "7.25e9")],
)
def test_folders_and_numbers_do_not_distinguish_failures(old: str, new: str) -> None:
    assert digest_of(TRACEBACK.replace(old, new)) == digest_of(TRACEBACK)


@pytest.mark.parametrize(
    ("old", "new"), [("line 9", "line 10"), ("task.py", "other.py"), ("in loss", "in init"), ("norm", "rank")]
)
def test_lines_functions_and_words_distinguish_failures(old: str, new: str) -> None:
    assert digest_of(TRACEBACK.replace(old, new)) != digest_of(TRACEBACK)


def test_the_end_of_a_long_traceback_is_kept() -> None:
    read = Failure.read(LaneFailure(lane=2, seq=5, traceback="x" * 9000 + "\nValueError: end"), "a")
    assert (read.lane, read.seq, read.host, len(read.traceback)) == (2, 5, "a", 8000)
    assert read.error == "ValueError: end"


def test_the_report_of_a_worker_describes_the_error() -> None:
    report = common_pb2.FailureReport(
        type="ValueError", message="bad", path="/x/task.py", line=9, function="f"
    )
    read = Failure.read(LaneFailure(traceback="a\nJAX's note", report=report), "a")
    assert read.error == "ValueError: bad (task.py:9 in f)"


def test_a_failure_without_traceback_still_has_a_description() -> None:
    assert Failure.read(LaneFailure(), "a").error == "an exception without a traceback"


def test_only_failures_identical_to_the_last_one_are_repeats() -> None:
    log = log_of(failure(digest="x"), failure(digest="y"), failure(digest="x"), failure(lane=1, digest="x"))
    assert (log.repeats(0), log.count(0)) == (2, 3)
    assert (log.repeats(5), log.count(5)) == (0, 0)


def test_a_success_ends_the_failures_of_earlier_estimates_of_its_lane() -> None:
    log = log_of(failure(seq=1), failure(seq=2), failure(lane=1, seq=1))
    log.succeeded(0, seq=1, host="a")
    assert (log.count(0), log.count(1)) == (1, 1)


def test_a_success_on_another_host_does_not_exonerate_the_first() -> None:
    log = log_of(failure(lane=0, host="a"), failure(lane=1, host="a"))
    log.succeeded(0, seq=1, host="b")
    assert log.count(0) == 0
    assert log.lanes_failing("a", "d") == [0, 1]


def test_a_released_lane_starts_with_no_failures_but_its_host_keeps_them() -> None:
    log = log_of(failure(), failure())
    log.forget_lane(0)
    assert (log.count(0), log.lanes_failing("a", "d")) == (0, [0, 0])


def test_the_failures_of_an_excluded_host_count_against_no_lane() -> None:
    log = log_of(failure(host="a"), failure(host="b"))
    log.forget_host("a")
    assert (log.count(0), log.lanes_failing("a", "d"), log.lanes_failing("b", "d")) == (1, [], [0])


def test_the_number_of_kept_failures_is_bounded() -> None:
    log = log_of(*(failure(seq=seq) for seq in range(1000)))
    assert log.count(0) == len(log.lanes_failing("a", "d")) == 256
