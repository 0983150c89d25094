"""The gRPC service that operators speak to, on a port of its own: it answers when the data plane is full."""
# ruff: noqa: N802  # gRPC names the methods

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Final, NoReturn

import grpc

from learner.checkpoint_store import CheckpointFile
from learner.checkpointing import CheckpointSchedule
from learner.run_directory import RunDirectory
from learner.runtime import Runtime
from learner.scale import Scale
from learner.status import build_status
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc

_WATCHERS: Final = 16
_WATCH_AT_LEAST_S: Final = 0.1
_SAVE_S: Final = 60.0
_EVENTS: Final = 1000
_DRAIN_S: Final = 60.0
_STACK_S: Final = 5.0


class AdminServicer(admin_pb2_grpc.AdminServicer):
    """Serves `unspool.v1.Admin`: it translates, and the core does."""

    def __init__(self, runtime: Runtime, schedule: CheckpointSchedule, run_directory: RunDirectory) -> None:
        self._runtime = runtime
        self._schedule = schedule
        self._run_directory = run_directory
        self._places = threading.Semaphore(_WATCHERS)
        self._closing = threading.Event()

    def GetStatus(self, request: admin_pb2.GetStatusRequest, context: Any) -> admin_pb2.Status:
        """Return the run's status."""
        with self._runtime.locked() as core:
            return build_status(core.run)

    def WatchStatus(self, request: admin_pb2.WatchStatusRequest, context: Any) -> Iterator[admin_pb2.Status]:
        """Return the status again and again, so that a watcher needs one call."""
        if not self._places.acquire(blocking=False):
            _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_WATCHERS} are watching already")
        context.add_callback(self._places.release)
        interval_s = max(_WATCH_AT_LEAST_S, request.interval_s)
        closing = False
        while context.is_active():
            with self._runtime.locked() as core:
                status = build_status(core.run)
            yield status
            if closing:
                return
            # The last word of a learner that ends is how it ended.
            closing = self._closing.wait(interval_s)

    def Scale(self, request: admin_pb2.ScaleRequest, context: Any) -> admin_pb2.ScaleReply:
        """Set how many workers are wanted; whoever supervises them follows."""
        try:
            with self._runtime.locked() as core:
                if request.HasField("range"):
                    before = core.operator.scale_between(request.range.min, request.range.max)
                else:
                    before = core.operator.scale(request.workers)
                wanted = Scale(core.run.workers_desired, core.run.workers_range)
                configured = core.run.settings.workers.scale
        except ValueError as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        try:
            self._run_directory.remember_scale(configured, wanted)
        except OSError as error:
            with self._runtime.locked() as core:
                text = f"the next life of the learner will not know of this command: {error}"
                core.run.events.add("warning", "scale_forgotten", text)
        return admin_pb2.ScaleReply(workers_before=before, workers=wanted.workers)

    def Drain(self, request: admin_pb2.DrainRequest, context: Any) -> admin_pb2.DrainReply:
        """Let one worker return its lanes and go."""
        try:
            with self._runtime.locked() as core:
                reason = request.reason or "asked to by an operator"
                core.operator.drain(request.worker_name, reason, request.deadline_s or _DRAIN_S)
        except KeyError as error:
            _abort(context, grpc.StatusCode.NOT_FOUND, str(error.args[0]))
        return admin_pb2.DrainReply()

    def Evict(self, request: admin_pb2.EvictRequest, context: Any) -> admin_pb2.EvictReply:
        """End one worker's session, whatever it is doing."""
        try:
            with self._runtime.locked() as core:
                core.operator.evict(request.worker_name, request.reason or "asked to by an operator")
        except KeyError as error:
            _abort(context, grpc.StatusCode.NOT_FOUND, str(error.args[0]))
        return admin_pb2.EvictReply()

    def GetStack(self, request: admin_pb2.GetStackRequest, context: Any) -> admin_pb2.GetStackReply:
        """Return what every thread of a worker is doing."""
        try:
            with self._runtime.locked() as core:
                asked = core.operator.ask_for_stack(request.worker_name)
        except KeyError as error:
            _abort(context, grpc.StatusCode.NOT_FOUND, str(error.args[0]))
        except ConnectionError as error:
            _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
        try:
            return admin_pb2.GetStackReply(text=asked.result(_STACK_S))
        except TimeoutError:
            with self._runtime.locked() as core:
                core.operator.give_up_stack(request.worker_name, asked)
            text = f"{request.worker_name} did not answer within {_STACK_S:.0f} s: its process may be stopped"
            _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, text)

    def ResetLane(self, request: admin_pb2.ResetLaneRequest, context: Any) -> admin_pb2.ResetLaneReply:
        """Let a lane out of quarantine."""
        try:
            with self._runtime.locked() as core:
                core.operator.reset_lane(request.lane, fresh=request.fresh)
        except KeyError as error:
            _abort(context, grpc.StatusCode.NOT_FOUND, str(error.args[0]))
        except ValueError as error:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return admin_pb2.ResetLaneReply()

    def Pause(self, request: admin_pb2.PauseRequest, context: Any) -> admin_pb2.PauseReply:
        """Let theta stand still."""
        with self._runtime.locked() as core:
            core.operator.pause()
        return admin_pb2.PauseReply()

    def Resume(self, request: admin_pb2.ResumeRequest, context: Any) -> admin_pb2.ResumeReply:
        """Let theta move again."""
        with self._runtime.locked() as core:
            core.operator.resume()
        return admin_pb2.ResumeReply()

    def SaveCheckpoint(
        self, request: admin_pb2.SaveCheckpointRequest, context: Any
    ) -> admin_pb2.CheckpointInfo:
        """Write a checkpoint now, and return when it is durable."""
        with self._runtime.locked() as core:
            over = core.run.phase.final
            saved: Future[CheckpointFile] = self._schedule.request()
        if over is not None:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, f"the run is {over}")
        try:
            file = saved.result(_SAVE_S)
        except TimeoutError:
            _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, f"not written within {_SAVE_S:.0f} s")
        except OSError as error:
            _abort(context, grpc.StatusCode.INTERNAL, f"could not be written: {error}")
        return admin_pb2.CheckpointInfo(
            path=str(file.path), outer_step=file.outer_step, theta_sha256=file.theta_sha256
        )

    def ListEvents(self, request: admin_pb2.ListEventsRequest, context: Any) -> admin_pb2.ListEventsReply:
        """Return events after a number."""
        with self._runtime.locked() as core:
            events = core.run.events.after(request.after, min(request.limit or _EVENTS, _EVENTS))
        return admin_pb2.ListEventsReply(events=events)

    def Stop(self, request: admin_pb2.StopRequest, context: Any) -> admin_pb2.StopReply:
        """End the run."""
        with self._runtime.locked() as core:
            core.operator.stop(now=request.now, reason="asked to by an operator")
            return admin_pb2.StopReply(outer_step=core.run.version)

    def NoteSupervision(self, request: admin_pb2.SupervisionNote, context: Any) -> admin_pb2.SupervisionReply:
        """Keep what the supervisor of the workers says."""
        with self._runtime.locked() as core:
            core.operator.note_supervision(request)
        return admin_pb2.SupervisionReply()

    def close(self) -> None:
        """End the streams of those who watch."""
        self._closing.set()


def _abort(context: Any, code: grpc.StatusCode, details: str) -> NoReturn:
    context.abort(code, details)
    raise AssertionError("unreachable: abort raises")
