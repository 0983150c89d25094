"""The client of a learner's admin service, with the endpoints, token and certificates that commands use."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from protos.exit_codes import FailedError, LearnerUnreachableError, RefusedError, UnspoolError, UsageError
from protos.rpc.channels import open_channel
from protos.rpc.roles import Role
from protos.rpc.tls import Identity, TlsError, handshake_problem
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc
from service.config.run_config import RunConfig
from service.config.toml_document import read_tables
from service.run.last_status import advice
from service.run.run_directory import Endpoints, RunDirectory, read_token

_TIMEOUT_S: Final = 10.0
_TIMEOUTS_S: Final = {
    "SaveCheckpoint": 70.0,
    "GetStack": 30.0,  # the learner's time limit for the worker's answer is shorter
}
_LOOK_AGAIN_S: Final = 1.0
_SERVICE: Final = admin_pb2.DESCRIPTOR.services_by_name["Admin"]
_CALLS: Final = {method.input_type.full_name: method.name for method in _SERVICE.methods}

TOKEN_FILE = "UNSPOOL_TOKEN_FILE"
"""Variable of the token file of users who cannot read the run's own, or have fewer rights than its owner."""

TLS_DIRECTORY = "UNSPOOL_TLS"
"""Variable of a folder with `ca.crt`, `tls.crt` and `tls.key`."""


class AdminClient:
    """A client of a learner's admin service.

    Every method may raise `LearnerUnreachableError` and `RefusedError`.
    """

    def __init__(self, address: str, token: str, identity: Identity | None = None) -> None:
        """Prepare a connection to "host:port" whose calls carry a token.

        Raises:
            UsageError: a TLS file of `identity` is unusable.
        """
        self._address = address
        self._identity = identity
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._open_channel()

    def move(self, address: str) -> None:
        """Connect to "host:port" from now on: a restarted learner may listen elsewhere."""
        if address != self._address:
            self._channel.close()
            self._address = address
            self._open_channel()

    def close(self) -> None:
        """Close the connection; the client is unusable afterwards."""
        self._channel.close()

    def status(self) -> admin_pb2.Status:
        """Return the status of the run."""
        status: admin_pb2.Status = self.ask(admin_pb2.GetStatusRequest())
        return status

    def watch(self, interval_s: float) -> Iterator[admin_pb2.Status]:
        """Yield the status of the run every `interval_s` seconds, until the learner ends."""
        request = admin_pb2.WatchStatusRequest(interval_s=interval_s)
        with self._typed_errors():
            yield from self._stub.WatchStatus(request, metadata=self._metadata)

    def ask(self, request: Message) -> Any:
        """Return the learner's reply to a request, whose type names the call."""
        call = _CALLS[request.DESCRIPTOR.full_name]
        send, timeout_s = getattr(self._stub, call), _TIMEOUTS_S.get(call, _TIMEOUT_S)
        with self._typed_errors():
            return send(request, metadata=self._metadata, timeout=timeout_s, wait_for_ready=False)

    def _open_channel(self) -> None:
        self._revision = None if self._identity is None else self._identity.revision()
        try:
            self._channel = open_channel(self._address, self._identity, (("grpc.enable_retries", 0),))
        except TlsError as error:
            raise UsageError(f"TLS: {error}") from error
        self._stub = admin_pb2_grpc.AdminStub(self._channel)

    def _explained(self, details: str) -> UnspoolError:
        """Return an error that explains the failed connection, and reconnect if certificates were renewed."""
        if self._identity is not None and self._identity.revision() != self._revision:
            before = self._channel
            with contextlib.suppress(UsageError):  # half written: complete at one of the next calls
                self._open_channel()
                before.close()
        problem = handshake_problem(self._address, self._identity)
        if problem:
            return RefusedError(f"no connection to the learner at {self._address}: {problem}")
        return LearnerUnreachableError(f"the learner at {self._address} does not answer: {details}")

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._typed(error.code(), error.details() or "") from error

    def _typed(self, code: grpc.StatusCode, details: str) -> UnspoolError:
        match code:
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.CANCELLED:
                return self._explained(details)
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return RefusedError(f"the learner at {self._address} refuses: {details}")
            case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE | grpc.StatusCode.NOT_FOUND:
                return UsageError(details)
            case grpc.StatusCode.FAILED_PRECONDITION:
                return FailedError(details)
            case grpc.StatusCode.UNIMPLEMENTED:
                return LearnerUnreachableError(f"another program answers at {self._address}: {details}")
            case _:
                return FailedError(f"the learner at {self._address}: {code.name}: {details}")


@contextlib.contextmanager
def connected(run: RunDirectory) -> Iterator[AdminClient]:
    """Yield a connection to the learner of `run`.

    Raises:
        LearnerUnreachableError: the learner does not run.
        RunNotFoundError: the token cannot be read.
        UsageError: the TLS files of the admin are unusable.
    """
    try:
        endpoints = run.endpoints()
        path = path_from(TOKEN_FILE)
        token = run.token() if path is None else read_token(path)
        admin = AdminClient(endpoints.admin, token, _admin_identity(run, endpoints))
        with contextlib.closing(admin):
            yield admin
    except LearnerUnreachableError as error:
        raise LearnerUnreachableError(f"{error}; {advice(run)}") from error


def path_from(variable: str) -> Path | None:
    """Return the path in an environment variable, or None."""
    path = os.environ.get(variable)
    return Path(path) if path else None


def _admin_identity(run: RunDirectory, endpoints: Endpoints) -> Identity | None:
    """Return the TLS files that commands use, None if nothing is encrypted."""
    if not endpoints.tls:
        return None
    directory = path_from(TLS_DIRECTORY)
    if directory is not None:
        return Identity(directory)
    return RunConfig.from_tables(read_tables(run.config_path)).tls.of(Role.ADMIN)


def events_of(run: RunDirectory, follow: bool) -> Iterator[admin_pb2.Event]:
    """Yield the run's events, oldest first; with `follow`, also new ones until the learner ends."""
    seen = 0
    try:
        with connected(run) as admin:
            while True:
                events = admin.ask(admin_pb2.ListEventsRequest(after=seen, limit=1000)).events
                yield from events
                seen = events[-1].number if events else seen
                if not events and not follow:
                    return
                time.sleep(0 if events else _LOOK_AGAIN_S)
    except LearnerUnreachableError:
        yield from (event for event in _events_in_log(run) if event.number > seen)


def _events_in_log(run: RunDirectory) -> Iterator[admin_pb2.Event]:
    try:
        log = run.log_path("events").with_suffix(".jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in log.splitlines():
        try:
            yield admin_pb2.Event(**json.loads(line))
        except (ValueError, TypeError):
            continue  # cut off by a crash
