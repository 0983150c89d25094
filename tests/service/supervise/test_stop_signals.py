import signal
from collections.abc import Iterator

import pytest

from service.supervise.stop_signals import StopSignals


@pytest.fixture
def heeded_hangup() -> Iterator[None]:
    """Whoever runs the tests may have it ignored, as `nohup` does, and then it stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heeded_hangup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_counted_until_there_is_one_too_many(number: signal.Signals) -> None:
    with StopSignals() as signals:
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert signals.count == 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_afterwards_signals_do_what_they_did_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopSignals():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_that_is_to_outlive_its_terminal_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)
    assert signals.count == 0
