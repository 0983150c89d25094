"""The learner as an operator sees it: one method for each thing that can be asked of it."""

import abc
import contextlib
from collections.abc import Iterator, Sequence

import grpc

from protos.unspool.v1 import admin_pb2, admin_pb2_grpc
from service.exits import FailedError, LearnerUnreachableError, RefusedError, ServiceError, UsageError
from service.run_directory import RunDirectory

_DEADLINE_S = 10.0
_SAVE_S = 70.0


class Admin(abc.ABC):
    """What can be asked of a learner. Every method may raise `LearnerUnreachableError` and `RefusedError`."""

    @abc.abstractmethod
    def status(self) -> admin_pb2.Status:
        """Return how the run stands."""

    @abc.abstractmethod
    def watch(self, interval_s: float) -> Iterator[admin_pb2.Status]:
        """Yield how the run stands, again and again, until the learner ends."""

    @abc.abstractmethod
    def scale(self, workers: int) -> int:
        """Set how many workers there should be; return how many there should have been."""

    @abc.abstractmethod
    def drain(self, worker: str, deadline_s: float, reason: str) -> None:
        """Ask a worker, through the learner, to give its lanes back and end."""

    @abc.abstractmethod
    def pause(self) -> None:
        """Hold outer updates."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Go on after `pause`."""

    @abc.abstractmethod
    def events(self, after: int) -> Sequence[admin_pb2.Event]:
        """Return what happened after event number `after`, oldest first."""

    @abc.abstractmethod
    def save_checkpoint(self) -> admin_pb2.CheckpointInfo:
        """Write a checkpoint now, and wait until it is durable."""

    @abc.abstractmethod
    def stop(self, now: bool) -> int:
        """Write a checkpoint and end the run, at once or after the running outer step; return its number."""


class GrpcAdmin(Admin):
    """A learner behind its operator's port."""

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._channel = grpc.insecure_channel(address, options=(("grpc.enable_retries", 0),))
        self._stub = admin_pb2_grpc.AdminStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def close(self) -> None:
        """Close the connection; the object cannot be used any more."""
        self._channel.close()

    def status(self) -> admin_pb2.Status:
        with self._typed_errors():
            status: admin_pb2.Status = self._stub.GetStatus(admin_pb2.GetStatusRequest(), **self._options)
            return status

    def watch(self, interval_s: float) -> Iterator[admin_pb2.Status]:
        request = admin_pb2.WatchStatusRequest(interval_s=interval_s)
        with self._typed_errors():
            yield from self._stub.WatchStatus(request, metadata=self._metadata)

    def scale(self, workers: int) -> int:
        with self._typed_errors():
            reply = self._stub.Scale(admin_pb2.ScaleRequest(workers=workers), **self._options)
            return int(reply.workers_before)

    def drain(self, worker: str, deadline_s: float, reason: str) -> None:
        request = admin_pb2.DrainRequest(worker_name=worker, deadline_s=deadline_s, reason=reason)
        with self._typed_errors():
            self._stub.Drain(request, **self._options)

    def pause(self) -> None:
        with self._typed_errors():
            self._stub.Pause(admin_pb2.PauseRequest(), **self._options)

    def resume(self) -> None:
        with self._typed_errors():
            self._stub.Resume(admin_pb2.ResumeRequest(), **self._options)

    def events(self, after: int) -> Sequence[admin_pb2.Event]:
        request = admin_pb2.ListEventsRequest(after=after, limit=1000)
        with self._typed_errors():
            return list(self._stub.ListEvents(request, **self._options).events)

    def save_checkpoint(self) -> admin_pb2.CheckpointInfo:
        options = {**self._options, "timeout": _SAVE_S}
        with self._typed_errors():
            saved: admin_pb2.CheckpointInfo = self._stub.SaveCheckpoint(
                admin_pb2.SaveCheckpointRequest(), **options
            )
            return saved

    def stop(self, now: bool) -> int:
        with self._typed_errors():
            return int(self._stub.Stop(admin_pb2.StopRequest(now=now), **self._options).outer_step)

    @property
    def _options(self) -> dict[str, object]:
        return {"metadata": self._metadata, "timeout": _DEADLINE_S, "wait_for_ready": False}

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._typed(error.code(), error.details() or "") from error

    def _typed(self, code: grpc.StatusCode, details: str) -> ServiceError:
        match code:
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.CANCELLED:
                return LearnerUnreachableError(f"the learner at {self._address} does not answer: {details}")
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return RefusedError(f"the learner at {self._address} refused this run's token: {details}")
            case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE | grpc.StatusCode.NOT_FOUND:
                return UsageError(details)
            case grpc.StatusCode.FAILED_PRECONDITION:
                return FailedError(details)
            case grpc.StatusCode.UNIMPLEMENTED:
                return LearnerUnreachableError(f"another program answers at {self._address}: {details}")
            case _:
                return FailedError(f"the learner at {self._address}: {code.name}: {details}")


@contextlib.contextmanager
def connected(run: RunDirectory) -> Iterator[Admin]:
    """Yield a connection to the learner of `run`.

    Raises:
        LearnerUnreachableError: it is not running.
    """
    admin = GrpcAdmin(run.endpoints().admin, run.token())
    try:
        yield admin
    finally:
        admin.close()
