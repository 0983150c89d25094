import os

import pytest

from workers.settings import WorkerSettings, join_request

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize("wrong", [{"learner": "nowhere"}, {"token": ""}, {"name": ""}])
def test_settings_that_cannot_work_are_refused_by_name(wrong):
    settings = {"learner": NOBODY, "token": "token", "name": "w0"} | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WorkerSettings(**settings)


def test_a_token_is_not_shown():
    assert "secret" not in repr(WorkerSettings(learner=NOBODY, token="secret", name="w0"))


def test_every_process_of_a_worker_has_a_uuid_of_its_own_under_the_same_name():
    first, second = (WorkerSettings(learner=NOBODY, token="token", name="w0") for _ in range(2))
    assert first.name == second.name
    assert first.process_uuid != second.process_uuid


def test_a_join_request_identifies_the_process_and_carries_no_token():
    settings = WorkerSettings(learner=NOBODY, token="secret", name="w0", run_id="run", host="node7")
    request = join_request(settings)
    assert (request.worker_name, request.run_id, request.host) == ("w0", "run", "node7")
    assert (request.process_uuid, request.pid) == (settings.process_uuid, os.getpid())
    assert b"secret" not in request.SerializeToString()
