"""Who a process of ours is, as it tells the learner at Join."""

import os

from protos.rpc.connection import PROTOCOL
from protos.unspool.v1 import learner_pb2
from workers.settings import WorkerSettings
from workers.version import client_version


def introduction(settings: WorkerSettings) -> learner_pb2.JoinRequest:
    """Return what a worker and a relay both say of themselves."""
    return learner_pb2.JoinRequest(
        protocol_min=PROTOCOL,
        protocol_max=PROTOCOL,
        client_version=client_version(),
        run_id=settings.run_id,
        worker_name=settings.name,
        incarnation=settings.incarnation,
        host=settings.host,
        pid=os.getpid(),
    )
