"""Admission control: which workers may join a run."""

from collections.abc import Mapping

import grpc

from learner.settings import LearnerSettings
from learner.state.sessions import WorkerSession
from protos.rpc.denials import DenialReason
from protos.rpc.session_host import JoinDeniedError, check_join
from protos.rpc.sessions import SessionTable
from protos.unspool.v1 import learner_pb2


def check_worker(
    request: learner_pb2.JoinRequest,
    settings: LearnerSettings,
    sessions: SessionTable[WorkerSession],
    excluded_hosts: Mapping[str, str],
) -> None:
    """Check that a worker may join this run now.

    Raises:
        JoinDeniedError: the worker may not join; the error contains the reason and the remedy.
    """
    check_join(request, settings.run_id, "learner")
    if request.host in excluded_hosts:
        raise JoinDeniedError(
            DenialReason.EXCLUDED_HOST,
            f"host {request.host!r} is excluded: {excluded_hosts[request.host]}; fix the host, then restart "
            "the learner: a restart clears exclusions",
        )
    if sessions.named(request.worker_name) is None and len(sessions) >= settings.workers.max_count:
        raise JoinDeniedError(
            DenialReason.NO_ROOM,
            f"all {settings.workers.max_count} places are taken (workers.max_count); try again later",
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
