import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from workers.relay.thetas import RelayThetas
from workers.session.client import UnavailableError


def test_however_many_ask_a_theta_is_fetched_once():
    fetched, may_answer = [], threading.Event()

    def fetch(outer_step: int) -> bytes:
        fetched.append(outer_step)
        assert may_answer.wait(60.0)
        return b"theta"

    thetas = RelayThetas(fetch)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(thetas.get, 1, 3) for _ in range(4)]
        may_answer.set()
        bodies = [future.result(60.0) for future in asked]
    assert fetched == [3]
    assert all(body is bodies[0] for body in bodies)


def test_a_fetch_that_fails_is_tried_again():
    answers = [UnavailableError("gone"), b"theta"]

    def fetch(outer_step: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    thetas = RelayThetas(fetch)
    with pytest.raises(UnavailableError, match="gone"):
        thetas.get(1, 0)
    assert thetas.get(1, 0) == b"theta"


def test_only_the_latest_thetas_are_kept():
    fetched = []
    thetas = RelayThetas(lambda outer_step: fetched.append(outer_step) or b"theta", kept=2)
    for outer_step in (0, 1, 0, 2, 0, 1):
        thetas.get(1, outer_step)
    assert fetched == [0, 1, 2, 1]


def test_another_start_of_the_learner_has_other_thetas():
    fetched = []
    thetas = RelayThetas(lambda outer_step: fetched.append(outer_step) or b"theta")
    thetas.get(1, 5)
    thetas.get(2, 5)
    assert fetched == [5, 5]
