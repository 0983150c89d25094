"""Threads that report their exceptions, and periodic calls."""

import queue

import pytest

from learner.threads import OwnedThread, Ticker
from tests.support.patience import PATIENCE_S


def test_a_thread_has_its_name_and_reports_nothing_if_it_ends_normally() -> None:
    reports: list[BaseException] = []
    thread = OwnedThread("worker", lambda: None, reports.append)
    thread.start()
    thread.join(PATIENCE_S)
    assert (thread.name, thread.is_alive(), reports) == ("worker", False, [])


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_every_exception_is_reported_to_the_owner(error: BaseException) -> None:
    def fail() -> None:
        raise error

    reports: queue.Queue[BaseException] = queue.Queue()
    OwnedThread("failing", fail, reports.put).start()
    assert reports.get(timeout=PATIENCE_S) is error


def test_a_thread_does_not_keep_the_process_from_exiting() -> None:
    assert OwnedThread("idle", lambda: None, print).daemon


def test_a_ticker_calls_until_it_is_stopped() -> None:
    calls: queue.Queue[None] = queue.Queue()
    ticker = Ticker("ticker", 0.001, lambda: calls.put(None), print)
    ticker.start()
    for _ in range(3):
        calls.get(timeout=PATIENCE_S)
    ticker.stop()
    assert not ticker.is_alive()


def test_a_ticker_stops_at_the_first_exception_and_reports_it() -> None:
    calls: list[None] = []

    def fail() -> None:
        calls.append(None)
        raise OSError("gone")

    reports: queue.Queue[BaseException] = queue.Queue()
    ticker = Ticker("ticker", 0.001, fail, reports.put)
    ticker.start()
    assert str(reports.get(timeout=PATIENCE_S)) == "gone"
    ticker.join(PATIENCE_S)
    assert (ticker.is_alive(), len(calls), reports.empty()) == (False, 1, True)


def test_a_stopped_ticker_does_not_wait_for_its_period() -> None:
    ticker = Ticker("ticker", 3600.0, lambda: None, print)
    ticker.start()
    ticker.stop()
    assert not ticker.is_alive()
