import json

import pytest

from protos.messages import as_dict, failure_message
from protos.unspool.v1.admin_pb2 import Status
from protos.unspool.v1.learner_pb2 import HeldLane, JoinRequest, PushVerdict


def test_fields_are_named_as_in_the_proto_file_and_integers_stay_integers() -> None:
    converted = as_dict(HeldLane(lane=3, fencing_token=2**40, seq=7))
    assert converted == {"lane": 3, "fencing_token": 2**40, "seq": 7}


def test_an_absent_optional_field_is_none_and_a_present_one_is_converted() -> None:
    assert as_dict(Status())["loss"] is None
    assert as_dict(Status(loss=0.0))["loss"] == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_have_is_none(value: float) -> None:
    assert json.dumps(as_dict(Status(loss=value))["loss"], allow_nan=False) == "null"


def test_repeated_messages_and_maps_become_lists_and_dicts() -> None:
    request = JoinRequest(held=[HeldLane(lane=1), HeldLane(lane=2)])
    assert [lane["lane"] for lane in as_dict(request)["held"]] == [1, 2]
    assert as_dict(Status(access_denials={"no_token": 2}))["access_denials"] == {"no_token": 2}


def test_a_message_without_repeated_entries_has_empty_lists() -> None:
    assert as_dict(PushVerdict())["parts"] == []


def test_a_failure_report_keeps_type_text_and_place() -> None:
    message = failure_message("KeyError", "'x'", ("task.py", 12, "loss"))
    assert (message.type, message.message) == ("KeyError", "'x'")
    assert (message.path, message.line, message.function) == ("task.py", 12, "loss")


def test_a_failure_report_without_a_place_has_an_empty_one() -> None:
    message = failure_message("KeyError", "'x'", None)
    assert (message.path, message.line, message.function) == ("", 0, "")
