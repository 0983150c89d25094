"""The settings of a worker process, and its join request."""

import os
import socket
import uuid
from dataclasses import dataclass, field

from protos.rpc.connection import PROTOCOL
from protos.rpc.tls import Identity
from protos.unspool.v1 import learner_pb2


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of one worker process. The learner sends everything about the run at Join.

    Attributes:
        learner: "host:port" of the learner's data plane.
        token: of the run, for workers.
        name: stable over restarts of the same worker; a newer process supersedes an older one.
        run_id: the run to join; empty: the learner's run, whichever it is.
        host: as shown to people.
        process_uuid: identifies the process; new for each one.
        tls: certificates of this worker and trusted CAs; None: the learner does not encrypt.
    """

    learner: str
    token: str = field(repr=False)
    name: str
    run_id: str = ""
    host: str = field(default_factory=socket.gethostname)
    process_uuid: str = field(default_factory=lambda: uuid.uuid4().hex)
    tls: Identity | None = None

    def __post_init__(self) -> None:
        if ":" not in self.learner:
            raise ValueError(f"WorkerSettings(learner={self.learner!r}): must be HOST:PORT")
        for name in ("token", "name"):
            if not getattr(self, name):
                raise ValueError(f"WorkerSettings({name}=''): must not be empty")


def join_request(settings: WorkerSettings) -> learner_pb2.JoinRequest:
    """Return the join request of a worker or a relay."""
    return learner_pb2.JoinRequest(
        protocol_min=PROTOCOL,
        protocol_max=PROTOCOL,
        run_id=settings.run_id,
        worker_name=settings.name,
        process_uuid=settings.process_uuid,
        host=settings.host,
        pid=os.getpid(),
    )
