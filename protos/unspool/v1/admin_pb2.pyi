from protos.unspool.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ("interval_s",)
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    interval_s: float
    def __init__(self, interval_s: _Optional[float] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("run", "state", "waiting_for", "term", "outer_step", "outer_steps", "loss", "grad_norm", "theta_sha256", "updates_per_s", "inner_steps_per_s", "inner_steps", "staleness", "workers_desired", "workers", "lanes", "verdicts", "endpoints", "checkpoint", "elapsed_s", "eta_s", "mode", "problems", "buffered", "access_denials", "workers_min", "workers_max", "excluded_hosts", "failures", "absent_workers", "diverged_tasks")
    class VerdictsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class EndpointsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AccessDenialsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    OUTER_STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    THETA_SHA256_FIELD_NUMBER: _ClassVar[int]
    UPDATES_PER_S_FIELD_NUMBER: _ClassVar[int]
    INNER_STEPS_PER_S_FIELD_NUMBER: _ClassVar[int]
    INNER_STEPS_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_DESIRED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    ETA_S_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    BUFFERED_FIELD_NUMBER: _ClassVar[int]
    ACCESS_DENIALS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_MIN_FIELD_NUMBER: _ClassVar[int]
    WORKERS_MAX_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_HOSTS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    ABSENT_WORKERS_FIELD_NUMBER: _ClassVar[int]
    DIVERGED_TASKS_FIELD_NUMBER: _ClassVar[int]
    run: str
    state: str
    waiting_for: str
    term: int
    outer_step: int
    outer_steps: int
    loss: float
    grad_norm: float
    theta_sha256: str
    updates_per_s: float
    inner_steps_per_s: float
    inner_steps: int
    staleness: Staleness
    workers_desired: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    lanes: _containers.RepeatedCompositeFieldContainer[LaneStatus]
    verdicts: _containers.ScalarMap[str, int]
    endpoints: _containers.ScalarMap[str, str]
    checkpoint: CheckpointInfo
    elapsed_s: float
    eta_s: float
    mode: str
    problems: _containers.RepeatedScalarFieldContainer[str]
    buffered: int
    access_denials: _containers.ScalarMap[str, int]
    workers_min: int
    workers_max: int
    excluded_hosts: _containers.RepeatedScalarFieldContainer[str]
    failures: _containers.RepeatedCompositeFieldContainer[FailureSummary]
    absent_workers: _containers.RepeatedCompositeFieldContainer[AbsentWorker]
    diverged_tasks: int
    def __init__(self, run: _Optional[str] = ..., state: _Optional[str] = ..., waiting_for: _Optional[str] = ..., term: _Optional[int] = ..., outer_step: _Optional[int] = ..., outer_steps: _Optional[int] = ..., loss: _Optional[float] = ..., grad_norm: _Optional[float] = ..., theta_sha256: _Optional[str] = ..., updates_per_s: _Optional[float] = ..., inner_steps_per_s: _Optional[float] = ..., inner_steps: _Optional[int] = ..., staleness: _Optional[_Union[Staleness, _Mapping]] = ..., workers_desired: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., lanes: _Optional[_Iterable[_Union[LaneStatus, _Mapping]]] = ..., verdicts: _Optional[_Mapping[str, int]] = ..., endpoints: _Optional[_Mapping[str, str]] = ..., checkpoint: _Optional[_Union[CheckpointInfo, _Mapping]] = ..., elapsed_s: _Optional[float] = ..., eta_s: _Optional[float] = ..., mode: _Optional[str] = ..., problems: _Optional[_Iterable[str]] = ..., buffered: _Optional[int] = ..., access_denials: _Optional[_Mapping[str, int]] = ..., workers_min: _Optional[int] = ..., workers_max: _Optional[int] = ..., excluded_hosts: _Optional[_Iterable[str]] = ..., failures: _Optional[_Iterable[_Union[FailureSummary, _Mapping]]] = ..., absent_workers: _Optional[_Iterable[_Union[AbsentWorker, _Mapping]]] = ..., diverged_tasks: _Optional[int] = ...) -> None: ...

class FailureSummary(_message.Message):
    __slots__ = ("failure", "count", "worker", "host", "lane", "age_s")
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    failure: _common_pb2.FailureReport
    count: int
    worker: str
    host: str
    lane: int
    age_s: float
    def __init__(self, failure: _Optional[_Union[_common_pb2.FailureReport, _Mapping]] = ..., count: _Optional[int] = ..., worker: _Optional[str] = ..., host: _Optional[str] = ..., lane: _Optional[int] = ..., age_s: _Optional[float] = ...) -> None: ...

class AbsentWorker(_message.Message):
    __slots__ = ("name", "state", "age_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    age_s: float
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., age_s: _Optional[float] = ...) -> None: ...

class SupervisionNote(_message.Message):
    __slots__ = ("problems", "absent_workers", "most_workers", "most_workers_reason")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    ABSENT_WORKERS_FIELD_NUMBER: _ClassVar[int]
    MOST_WORKERS_FIELD_NUMBER: _ClassVar[int]
    MOST_WORKERS_REASON_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedScalarFieldContainer[str]
    absent_workers: _containers.RepeatedCompositeFieldContainer[AbsentWorker]
    most_workers: int
    most_workers_reason: str
    def __init__(self, problems: _Optional[_Iterable[str]] = ..., absent_workers: _Optional[_Iterable[_Union[AbsentWorker, _Mapping]]] = ..., most_workers: _Optional[int] = ..., most_workers_reason: _Optional[str] = ...) -> None: ...

class SupervisionReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Staleness(_message.Message):
    __slots__ = ("mean", "max")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    mean: float
    max: int
    def __init__(self, mean: _Optional[float] = ..., max: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("name", "host", "pid", "state", "lanes", "phase", "waiting_for", "heartbeat_age_s", "inner_steps_per_s", "estimates", "resident_bytes", "device_kind", "stale_in_a_row", "process_uuid", "workers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    INNER_STEPS_PER_S_FIELD_NUMBER: _ClassVar[int]
    ESTIMATES_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KIND_FIELD_NUMBER: _ClassVar[int]
    STALE_IN_A_ROW_FIELD_NUMBER: _ClassVar[int]
    PROCESS_UUID_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    host: str
    pid: int
    state: str
    lanes: _containers.RepeatedScalarFieldContainer[int]
    phase: str
    waiting_for: str
    heartbeat_age_s: float
    inner_steps_per_s: float
    estimates: int
    resident_bytes: int
    device_kind: str
    stale_in_a_row: int
    process_uuid: str
    workers: int
    def __init__(self, name: _Optional[str] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., state: _Optional[str] = ..., lanes: _Optional[_Iterable[int]] = ..., phase: _Optional[str] = ..., waiting_for: _Optional[str] = ..., heartbeat_age_s: _Optional[float] = ..., inner_steps_per_s: _Optional[float] = ..., estimates: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., device_kind: _Optional[str] = ..., stale_in_a_row: _Optional[int] = ..., process_uuid: _Optional[str] = ..., workers: _Optional[int] = ...) -> None: ...

class LaneStatus(_message.Message):
    __slots__ = ("lane", "state", "worker", "seq", "fencing_token", "inner_step", "snapshot_seq", "loss", "estimator", "problem", "failures")
    LANE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INNER_STEP_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_SEQ_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    lane: int
    state: str
    worker: str
    seq: int
    fencing_token: int
    inner_step: float
    snapshot_seq: int
    loss: float
    estimator: str
    problem: str
    failures: int
    def __init__(self, lane: _Optional[int] = ..., state: _Optional[str] = ..., worker: _Optional[str] = ..., seq: _Optional[int] = ..., fencing_token: _Optional[int] = ..., inner_step: _Optional[float] = ..., snapshot_seq: _Optional[int] = ..., loss: _Optional[float] = ..., estimator: _Optional[str] = ..., problem: _Optional[str] = ..., failures: _Optional[int] = ...) -> None: ...

class ScaleRequest(_message.Message):
    __slots__ = ("workers", "range")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    workers: int
    range: WorkersRange
    def __init__(self, workers: _Optional[int] = ..., range: _Optional[_Union[WorkersRange, _Mapping]] = ...) -> None: ...

class WorkersRange(_message.Message):
    __slots__ = ("min", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: int
    max: int
    def __init__(self, min: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class ScaleReply(_message.Message):
    __slots__ = ("workers_before", "workers")
    WORKERS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers_before: int
    workers: int
    def __init__(self, workers_before: _Optional[int] = ..., workers: _Optional[int] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("worker_name", "deadline_s", "reason")
    WORKER_NAME_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    worker_name: str
    deadline_s: float
    reason: str
    def __init__(self, worker_name: _Optional[str] = ..., deadline_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EvictRequest(_message.Message):
    __slots__ = ("worker_name", "reason")
    WORKER_NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    worker_name: str
    reason: str
    def __init__(self, worker_name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class EvictReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStackRequest(_message.Message):
    __slots__ = ("worker_name",)
    WORKER_NAME_FIELD_NUMBER: _ClassVar[int]
    worker_name: str
    def __init__(self, worker_name: _Optional[str] = ...) -> None: ...

class GetStackReply(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ResetLaneRequest(_message.Message):
    __slots__ = ("lane", "fresh")
    LANE_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    lane: int
    fresh: bool
    def __init__(self, lane: _Optional[int] = ..., fresh: _Optional[bool] = ...) -> None: ...

class ResetLaneReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PauseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SaveCheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckpointInfo(_message.Message):
    __slots__ = ("path", "outer_step", "theta_sha256", "age_s")
    PATH_FIELD_NUMBER: _ClassVar[int]
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    THETA_SHA256_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    path: str
    outer_step: int
    theta_sha256: str
    age_s: float
    def __init__(self, path: _Optional[str] = ..., outer_step: _Optional[int] = ..., theta_sha256: _Optional[str] = ..., age_s: _Optional[float] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "unix_time_s", "level", "kind", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    UNIX_TIME_S_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    unix_time_s: float
    level: str
    kind: str
    text: str
    def __init__(self, number: _Optional[int] = ..., unix_time_s: _Optional[float] = ..., level: _Optional[str] = ..., kind: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ListEventsReply(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("now",)
    NOW_FIELD_NUMBER: _ClassVar[int]
    now: bool
    def __init__(self, now: _Optional[bool] = ...) -> None: ...

class StopReply(_message.Message):
    __slots__ = ("outer_step",)
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    outer_step: int
    def __init__(self, outer_step: _Optional[int] = ...) -> None: ...
