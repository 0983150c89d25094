import grpc
import pytest

from protos.rpc.denials import DenialReason
from protos.rpc.session_host import JoinDeniedError, check_join
from protos.unspool.v1.learner_pb2 import JoinRequest


def request_with(**changes: object) -> JoinRequest:
    fields = {"protocol_min": 1, "protocol_max": 1, "worker_name": "w0", "process_uuid": "i0"}
    return JoinRequest(**(fields | changes))


@pytest.mark.parametrize(
    "changes",
    [{}, {"run_id": "run"}, {"protocol_max": 9}, {"worker_name": "a.b-c_9"}, {"worker_name": "x" * 64}],
)
def test_a_request_that_matches_passes(changes: dict[str, object]) -> None:
    check_join(request_with(**changes), "run", "learner")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol_min": 2, "protocol_max": 3}, DenialReason.WRONG_PROTOCOL),
        ({"protocol_min": 0, "protocol_max": 0}, DenialReason.WRONG_PROTOCOL),
        ({"run_id": "other"}, DenialReason.WRONG_RUN),
        ({"worker_name": "../w0"}, DenialReason.BAD_NAME),
        ({"worker_name": "x" * 65}, DenialReason.BAD_NAME),
        ({"process_uuid": ""}, DenialReason.BAD_NAME),
    ],
)
def test_a_request_that_does_not_match_is_denied_with_its_reason(
    changes: dict[str, object], reason: DenialReason
) -> None:
    with pytest.raises(JoinDeniedError, match=r"this relay|each must be") as denied:
        check_join(request_with(**changes), "run", "relay")
    assert denied.value.reason is reason
    assert denied.value.status is grpc.StatusCode.FAILED_PRECONDITION
