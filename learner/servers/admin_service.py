"""The admin gRPC service, on its own port, so that it answers even if the workers' server is full."""
# ruff: noqa: N802  # gRPC determines the method names

import contextlib
import threading
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Final

import grpc

from learner.coordination.admin import WrongStateError
from learner.coordination.core import LearnerCore
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc

_WATCHERS: Final = 16
_WATCH_AT_LEAST_S: Final = 0.1
_SAVE_S: Final = 60.0
_EVENTS: Final = 1000
_DRAIN_S: Final = 60.0
_CODES: Final = MappingProxyType(
    {
        KeyError: grpc.StatusCode.NOT_FOUND,
        ValueError: grpc.StatusCode.INVALID_ARGUMENT,
        WrongStateError: grpc.StatusCode.FAILED_PRECONDITION,
        ConnectionError: grpc.StatusCode.UNAVAILABLE,
        TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
        OSError: grpc.StatusCode.INTERNAL,
    }
)
"""The gRPC status for each error of a command; the first matching type applies."""


class AdminServicer(admin_pb2_grpc.AdminServicer):
    """Serves `unspool.v1.Admin` by translating calls to the core's admin commands."""

    def __init__(self, core: LearnerCore) -> None:
        self._core = core
        self._admin = core.admin
        self._places = threading.Semaphore(_WATCHERS)
        self._closing = threading.Event()

    def GetStatus(self, request: admin_pb2.GetStatusRequest, context: Any) -> admin_pb2.Status:
        """Return the run's status."""
        return self._core.status()

    def WatchStatus(self, request: admin_pb2.WatchStatusRequest, context: Any) -> Iterator[admin_pb2.Status]:
        """Yield the status at an interval until the caller or the learner ends."""
        if not self._places.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_WATCHERS} clients watch the status already")
        context.add_callback(self._places.release)
        interval_s = max(_WATCH_AT_LEAST_S, request.interval_s)
        closing = False
        while context.is_active():
            yield self._core.status()
            if closing:
                return
            # After `close`, send one last status, which contains the outcome of the run.
            closing = self._closing.wait(interval_s)

    def Scale(self, request: admin_pb2.ScaleRequest, context: Any) -> admin_pb2.ScaleReply:
        """Set the desired number of workers; their supervisor starts or stops workers accordingly."""
        with _errors_answered(context):
            if request.HasField("range"):
                before, wanted = self._admin.scale_between(request.range.min, request.range.max)
            else:
                before, wanted = self._admin.scale(request.workers)
        return admin_pb2.ScaleReply(workers_before=before.workers, workers=wanted.workers)

    def Drain(self, request: admin_pb2.DrainRequest, context: Any) -> admin_pb2.DrainReply:
        """Ask one worker to return its lanes and leave."""
        with _errors_answered(context):
            reason = request.reason or "requested by an admin"
            self._admin.drain(request.worker_name, reason, request.deadline_s or _DRAIN_S)
        return admin_pb2.DrainReply()

    def Evict(self, request: admin_pb2.EvictRequest, context: Any) -> admin_pb2.EvictReply:
        """End one worker's session immediately."""
        with _errors_answered(context):
            self._admin.evict(request.worker_name, request.reason or "requested by an admin")
        return admin_pb2.EvictReply()

    def GetStack(self, request: admin_pb2.GetStackRequest, context: Any) -> admin_pb2.GetStackReply:
        """Return the stack traces of all threads of a worker."""
        with _errors_answered(context):
            return admin_pb2.GetStackReply(text=self._admin.stack(request.worker_name))

    def ResetLane(self, request: admin_pb2.ResetLaneRequest, context: Any) -> admin_pb2.ResetLaneReply:
        """Release a lane from quarantine."""
        with _errors_answered(context):
            self._admin.reset_lane(request.lane, fresh=request.fresh)
        return admin_pb2.ResetLaneReply()

    def Pause(self, request: admin_pb2.PauseRequest, context: Any) -> admin_pb2.PauseReply:
        """Stop applying updates."""
        self._admin.pause()
        return admin_pb2.PauseReply()

    def Resume(self, request: admin_pb2.ResumeRequest, context: Any) -> admin_pb2.ResumeReply:
        """Apply updates again."""
        self._admin.resume()
        return admin_pb2.ResumeReply()

    def SaveCheckpoint(
        self, request: admin_pb2.SaveCheckpointRequest, context: Any
    ) -> admin_pb2.CheckpointInfo:
        """Write a checkpoint now; return after it is durable."""
        with _errors_answered(context):
            return self._admin.save_checkpoint(_SAVE_S).info()

    def ListEvents(self, request: admin_pb2.ListEventsRequest, context: Any) -> admin_pb2.ListEventsReply:
        """Return the events after a given number."""
        events = self._core.events.after(request.after, min(request.limit or _EVENTS, _EVENTS))
        return admin_pb2.ListEventsReply(events=events)

    def Stop(self, request: admin_pb2.StopRequest, context: Any) -> admin_pb2.StopReply:
        """End the run."""
        outer_step = self._admin.stop(now=request.now, reason="requested by an admin")
        return admin_pb2.StopReply(outer_step=outer_step)

    def NoteSupervision(self, request: admin_pb2.SupervisionNote, context: Any) -> admin_pb2.SupervisionReply:
        """Store the report of the workers' supervisor."""
        self._admin.note_supervision(request)
        return admin_pb2.SupervisionReply()

    def close(self) -> None:
        """End all `WatchStatus` streams."""
        self._closing.set()


@contextlib.contextmanager
def _errors_answered(context: Any) -> Iterator[None]:
    """Abort the call with the status and text of the error that a command raises."""
    try:
        yield
    except tuple(_CODES) as error:
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        context.abort(code, str(error.args[0]))
