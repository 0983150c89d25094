"""The learner process: lock the run directory, restore, listen, apply updates to the end, shut down."""

import contextlib
import functools
import os
import queue
import signal
import time
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

import jax
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from learner.coordination.core import LearnerCore
from learner.servers.admin_service import AdminServicer
from learner.servers.http_service import HttpPlane, listen
from learner.servers.worker_service import LearnerHost
from learner.settings import LearnerSettings
from learner.state.run import Run
from learner.state.run_state import RunState
from learner.stop_signals import stop_signals
from learner.storage.checkpoint_store import CheckpointStore
from learner.storage.events import EventLog
from learner.storage.ownership import Ownership
from learner.storage.records import Records, Series, read_records
from learner.storage.run_directory import LearnerDirectory, Ports
from learner.storage.snapshots import SnapshotStore
from learner.threads import OwnedThread, Ticker
from learner.training.disk_writer import DiskWriter, Saver
from learner.training.outer import OuterLearner
from learner.training.resume import restore
from learner.training.update_loop import UpdateLoop
from protos import codec
from protos.exit_codes import ExitCode, FencedError, PortInUseError, UsageError
from protos.messages import as_dict
from protos.rpc.access import Access
from protos.rpc.connection import address_of, advertised_host
from protos.rpc.denials import Denials
from protos.rpc.server import GrpcServer, reuse_large_blocks
from protos.rpc.server_tls import ServerTls
from protos.rpc.session_service import SessionServicer
from protos.rpc.tls import TlsError, check_server
from protos.unspool.v1 import admin_pb2, admin_pb2_grpc, learner_pb2, learner_pb2_grpc

_EXIT_CODES: Final = {RunState.FAILED: ExitCode.RUN_FAILED, RunState.UNTRAINED: ExitCode.UNTRAINED}
_SPARE_THREADS: Final = 32  # for calls other than the streams of the maximum number of workers
_ADMIN_THREADS: Final = 32
_GOODBYE_S: Final = 3.0  # time for the last messages to be sent at shutdown
_JOIN_S: Final = 10.0
_DRAIN_S: Final = 60.0  # the longest wait for an outer step after the first stop signal
_TICK_S: Final = 0.25
_KEEP_S: Final = 1.0  # the interval of ownership checks and lease renewals
_LARGE_THETAS_BYTES: Final = 1 << 30

_Message: TypeAlias = RunState | BaseException | signal.Signals
_Bound = TypeVar("_Bound")


def serve(settings: LearnerSettings, *, takeover: bool = False) -> ExitCode:
    """Run the learner of a run directory until the run ends.

    A first SIGTERM or SIGINT stops it after the current outer step, or after a minute if the step takes
    longer; a second one stops it without waiting for the step. In both cases, the last theta is saved in a
    checkpoint. A third signal kills the process.

    Args:
        settings: the learner's settings.
        takeover: take the run directory over from a learner that holds it.

    Returns:
        `OK` if the run finished or was stopped, `RUN_FAILED` if it failed, `UNTRAINED` if no update ever
        moved theta.

    Raises:
        RunInUseError: another learner holds the run directory.
        FencedError: another learner has taken the run over.
        PortInUseError: a port is in use.
        CheckpointError: no checkpoint can be resumed from, or the last one could not be written.
    """
    reuse_large_blocks()
    # The outer update is small, and its result must not depend on the accelerator of the learner's machine.
    jax.config.update("jax_platforms", "cpu")  # type: ignore[no-untyped-call]  # jax has no types here
    inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    ownership = Ownership(settings.run_dir)
    with ownership.held(takeover=takeover), stop_signals(inbox.put), contextlib.ExitStack() as cleanup:
        final = _Learner(settings, ownership, inbox, cleanup).run()
    return _EXIT_CODES.get(final, ExitCode.OK)


class _Learner:
    """The parts of a learner process, shut down in reverse order of their start."""

    def __init__(
        self,
        settings: LearnerSettings,
        ownership: Ownership,
        inbox: queue.SimpleQueue[_Message],
        cleanup: contextlib.ExitStack,
    ) -> None:
        self._settings = settings
        directory = self._directory = LearnerDirectory(settings.run_dir)
        self._ownership = ownership
        self._inbox = inbox
        self._cleanup = cleanup
        directory.clear_endpoints()
        self._events = EventLog(directory.events)
        cleanup.callback(self._events.close)
        self._denials = Denials(
            report=lambda reason, text: self._events.add("warning", "access_refused", f"{reason}: {text}")
        )
        self._tls = _server_tls(settings, self._denials)
        self._access = Access(
            settings.tokens.by_role(), settings.run_id, self._denials, is_mutual=settings.tls.mutual
        )
        # Bind the ports before incrementing the term, so that a port in use does not fence another learner.
        places = settings.workers.max_count + _SPARE_THREADS
        self._data = GrpcServer("data-plane", places, self._access, self._tls)
        cleanup.callback(self._data.stop, 0)
        self._admin = GrpcServer("admin-plane", _ADMIN_THREADS, self._access, self._tls)
        cleanup.callback(self._admin.stop, 0)
        last = directory.last_ports()
        learner_port = _bound(self._data.bind, settings.listen.host, settings.listen.port, last.learner)
        admin_port = _bound(self._admin.bind, settings.listen.host, settings.listen.admin_port, last.admin)
        self._http_socket = _bound(listen, settings.listen.host, settings.listen.http_port, last.http)
        cleanup.callback(self._http_socket.close)
        self._ports = Ports(learner_port, admin_port, self._http_socket.getsockname()[1])
        self._snapshots = SnapshotStore(directory.lanes, ownership.check)
        self._checkpoints = CheckpointStore(directory.checkpoints, settings.checkpoint.keep, ownership.check)

    def run(self) -> RunState:
        """Serve until the run ends; return its final state."""
        run, outer = self._restore()
        core = LearnerCore(
            run, functools.partial(self._directory.remember_scale, self._settings.workers.scale)
        )
        series = Series(read_records(self._directory.metrics / "outer.csv"))
        # Save the last status for queries after the learner has exited.
        self._cleanup.callback(self._if_owned, lambda: self._directory.write_status(as_dict(core.status())))
        writer = self._start_writer(core, run.outer_step)
        self._start_tickers(core)
        self._start_servers(core, series)
        self._announce(core, run.term)
        loop = UpdateLoop(core, outer, writer, series)
        update = OwnedThread("update", lambda: self._inbox.put(loop.run()), self._inbox.put)
        update.start()
        self._cleanup.callback(update.join, _JOIN_S)
        return self._wait(core)

    def _restore(self) -> tuple[Run, OuterLearner]:
        outer = OuterLearner(self._settings.experiment, self._settings.aggregation.batch_size)
        run = restore(
            self._settings,
            self._ownership.begin_term(),
            outer,
            self._checkpoints,
            self._snapshots,
            self._events,
            time.monotonic,
        )
        self._warn_of_large_thetas(run, codec.body_bytes(outer.schema))
        run.telemetry.denials = self._denials
        run.scale = self._directory.scale(self._settings.workers.scale)
        outer.warm_up()
        return run, outer

    def _warn_of_large_thetas(self, run: Run, theta_bytes: int) -> None:
        """Warn if the thetas kept for replays will be large, in memory and in checkpoints."""
        kept_bytes = 2 * self._settings.checkpoint.every * theta_bytes
        if run.aggregation.exact_steps and kept_bytes > _LARGE_THETAS_BYTES:
            text = (
                f"up to {kept_bytes / 2**30:.1f} GiB of old thetas will be kept; make checkpoints more often"
            )
            self._events.add("warning", "large_ring", text)

    def _start_writer(self, core: LearnerCore, outer_step: int) -> DiskWriter:
        records = Records(self._directory.metrics, outer_step)
        saver = Saver(core.checkpoints, self._checkpoints, self._snapshots)
        writer = DiskWriter(core.updates, records, saver, self._inbox.put)
        writer.start()
        self._cleanup.callback(writer.close)
        return writer

    def _start_tickers(self, core: LearnerCore) -> None:
        # Use two threads, so that a stalled disk does not delay the detection of silent workers.
        for ticker in (
            Ticker("ticker", _TICK_S, core.tick, self._inbox.put),
            Ticker("owner", _KEEP_S, self._ownership.keep, self._inbox.put),
        ):
            ticker.start()
            self._cleanup.callback(ticker.stop)

    def _start_servers(self, core: LearnerCore, series: Series) -> None:
        http = HttpPlane(core, series, self._http_socket, self._access, self._tls)
        http.start()
        self._cleanup.callback(http.stop)
        admins = AdminServicer(core)
        admin_pb2_grpc.add_AdminServicer_to_server(admins, self._admin.server)
        _add_health_and_reflection(self._admin)
        self._admin.start()
        self._cleanup.callback(self._admin.stop, _GOODBYE_S)
        self._cleanup.callback(admins.close)
        workers = SessionServicer(LearnerHost(core, self._snapshots))
        learner_pb2_grpc.add_LearnerServicer_to_server(workers, self._data.server)
        self._data.start()
        self._cleanup.callback(workers.join_readers)
        self._cleanup.callback(self._data.stop, _GOODBYE_S)
        self._cleanup.callback(core.hang_up)

    def _announce(self, core: LearnerCore, term: int) -> None:
        """Write the endpoints, once the learner listens on all three ports."""
        host = advertised_host(self._settings.listen.host, self._settings.listen.advertise)
        scheme = "" if self._tls is None else "https://"
        endpoints = {
            "learner": address_of(host, self._ports.learner),
            "admin": address_of(host, self._ports.admin),
            "http": scheme + address_of(host, self._ports.http),
        }
        is_tls = self._tls is not None
        about = {"run": self._settings.run_id, "pid": os.getpid(), "term": term, "tls": is_tls}
        core.listening(endpoints)
        self._directory.remember_ports(self._ports)
        self._directory.write_endpoints({**about, **endpoints})
        self._cleanup.callback(self._if_owned, self._directory.clear_endpoints)

    def _wait(self, core: LearnerCore) -> RunState:
        """Wait for the end of the update thread; turn signals and timeouts into stop commands."""
        stops = 0
        while True:
            try:
                message = self._inbox.get(timeout=_DRAIN_S if stops == 1 else None)
            except queue.Empty:
                reason = f"the outer step takes more than {_DRAIN_S:.0f} s"
            else:
                if isinstance(message, RunState):
                    return message
                if isinstance(message, BaseException):
                    is_fenced = isinstance(message, FencedError)
                    if is_fenced:
                        self._events.close()  # the other learner owns the file
                    core.crashed(message, is_fenced=is_fenced)
                    raise message
                reason = f"received {message.name}"
            stops += 1
            core.admin.stop(now=stops > 1, reason=reason)

    def _if_owned(self, write: Callable[[], None]) -> None:
        """Call `write`, unless a later learner owns the files; ignore disk errors."""
        with contextlib.suppress(OSError, FencedError):
            self._ownership.check()
            write()


def _bound(bind: Callable[[str, int], _Bound], host: str, configured: int, last: int) -> _Bound:
    """Bind the configured port; if it is 0, prefer the port of the last learner process if it is free."""
    if configured == 0 and last != 0:
        with contextlib.suppress(PortInUseError):
            return bind(host, last)
    return bind(host, configured)


def _add_health_and_reflection(server: GrpcServer) -> None:
    services = [
        learner_pb2.DESCRIPTOR.services_by_name["Learner"].full_name,
        admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name,
    ]
    servicer = health.HealthServicer()
    for service in ("", *services):
        servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server.server)
    reflection.enable_server_reflection(
        [*services, reflection.SERVICE_NAME, health.SERVICE_NAME], server.server
    )


def _server_tls(settings: LearnerSettings, denials: Denials) -> ServerTls | None:
    """Return the learner's TLS setup, or None; check that clients will accept its certificate.

    Raises:
        UsageError: clients would reject the certificate, or a file cannot be used.
    """
    if settings.tls.server is None:
        return None
    try:
        host = advertised_host(settings.listen.host, settings.listen.advertise).strip("[]")
        check_server(settings.tls.server, host)
        return ServerTls(settings.tls.server, denials, is_mutual=settings.tls.mutual)
    except TlsError as error:
        remedy = "renew the files, or create new ones with `unspool certs init`"
        raise UsageError(f"TLS: {error}; {remedy}") from error
