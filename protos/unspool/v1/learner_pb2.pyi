from protos.unspool.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    ACCEPTED: _ClassVar[Verdict]
    APPLIED: _ClassVar[Verdict]
    DUPLICATE: _ClassVar[Verdict]
    STALE: _ClassVar[Verdict]
    FUTURE: _ClassVar[Verdict]
    NOT_LEASED: _ClassVar[Verdict]
    NONFINITE: _ClassVar[Verdict]
    SCHEMA_MISMATCH: _ClassVar[Verdict]
    TOO_LARGE: _ClassVar[Verdict]
    NO_CREDIT: _ClassVar[Verdict]
    CORRUPT: _ClassVar[Verdict]
    CLOSED: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
ACCEPTED: Verdict
APPLIED: Verdict
DUPLICATE: Verdict
STALE: Verdict
FUTURE: Verdict
NOT_LEASED: Verdict
NONFINITE: Verdict
SCHEMA_MISMATCH: Verdict
TOO_LARGE: Verdict
NO_CREDIT: Verdict
CORRUPT: Verdict
CLOSED: Verdict

class JoinRequest(_message.Message):
    __slots__ = ("protocol_min", "protocol_max", "run_id", "worker_name", "process_uuid", "host", "pid", "device_kind", "held", "relay")
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_NAME_FIELD_NUMBER: _ClassVar[int]
    PROCESS_UUID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_KIND_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    protocol_min: int
    protocol_max: int
    run_id: str
    worker_name: str
    process_uuid: str
    host: str
    pid: int
    device_kind: str
    held: _containers.RepeatedCompositeFieldContainer[HeldLane]
    relay: bool
    def __init__(self, protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., run_id: _Optional[str] = ..., worker_name: _Optional[str] = ..., process_uuid: _Optional[str] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., device_kind: _Optional[str] = ..., held: _Optional[_Iterable[_Union[HeldLane, _Mapping]]] = ..., relay: _Optional[bool] = ...) -> None: ...

class HeldLane(_message.Message):
    __slots__ = ("lane", "fencing_token", "seq")
    LANE_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    lane: int
    fencing_token: int
    seq: int
    def __init__(self, lane: _Optional[int] = ..., fencing_token: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("protocol", "run_id", "term", "session_id", "session_secret", "heartbeat_s", "orphan_ttl_s", "chunk_bytes", "schema", "experiment_toml", "outer_step", "lanes_total", "snapshot_every", "exact_steps", "merges", "lease_ttl_s")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_SECRET_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    ORPHAN_TTL_S_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_TOML_FIELD_NUMBER: _ClassVar[int]
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    LANES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_EVERY_FIELD_NUMBER: _ClassVar[int]
    EXACT_STEPS_FIELD_NUMBER: _ClassVar[int]
    MERGES_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_S_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_id: str
    term: int
    session_id: str
    session_secret: str
    heartbeat_s: float
    orphan_ttl_s: float
    chunk_bytes: int
    schema: _common_pb2.Schema
    experiment_toml: str
    outer_step: int
    lanes_total: int
    snapshot_every: int
    exact_steps: bool
    merges: bool
    lease_ttl_s: float
    def __init__(self, protocol: _Optional[int] = ..., run_id: _Optional[str] = ..., term: _Optional[int] = ..., session_id: _Optional[str] = ..., session_secret: _Optional[str] = ..., heartbeat_s: _Optional[float] = ..., orphan_ttl_s: _Optional[float] = ..., chunk_bytes: _Optional[int] = ..., schema: _Optional[_Union[_common_pb2.Schema, _Mapping]] = ..., experiment_toml: _Optional[str] = ..., outer_step: _Optional[int] = ..., lanes_total: _Optional[int] = ..., snapshot_every: _Optional[int] = ..., exact_steps: _Optional[bool] = ..., merges: _Optional[bool] = ..., lease_ttl_s: _Optional[float] = ...) -> None: ...

class WorkerMessage(_message.Message):
    __slots__ = ("heartbeat", "push", "snapshot", "chunk", "lane_return", "log", "lane_failure", "stack")
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    PUSH_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    LANE_RETURN_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    LANE_FAILURE_FIELD_NUMBER: _ClassVar[int]
    STACK_FIELD_NUMBER: _ClassVar[int]
    heartbeat: Heartbeat
    push: GradientEstimatorOut
    snapshot: Snapshot
    chunk: _common_pb2.Chunk
    lane_return: LaneReturn
    log: LogLine
    lane_failure: LaneFailure
    stack: StackDump
    def __init__(self, heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., push: _Optional[_Union[GradientEstimatorOut, _Mapping]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., chunk: _Optional[_Union[_common_pb2.Chunk, _Mapping]] = ..., lane_return: _Optional[_Union[LaneReturn, _Mapping]] = ..., log: _Optional[_Union[LogLine, _Mapping]] = ..., lane_failure: _Optional[_Union[LaneFailure, _Mapping]] = ..., stack: _Optional[_Union[StackDump, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("phase", "phase_age_s", "progress", "resident_bytes", "waiting_for", "inner_steps_per_s", "lanes", "workers", "lane")
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PHASE_UNSPECIFIED: _ClassVar[Heartbeat.Phase]
        IDLE: _ClassVar[Heartbeat.Phase]
        COMPILING: _ClassVar[Heartbeat.Phase]
        COMPUTING: _ClassVar[Heartbeat.Phase]
        RESTORING: _ClassVar[Heartbeat.Phase]
        DRAINING: _ClassVar[Heartbeat.Phase]
    PHASE_UNSPECIFIED: Heartbeat.Phase
    IDLE: Heartbeat.Phase
    COMPILING: Heartbeat.Phase
    COMPUTING: Heartbeat.Phase
    RESTORING: Heartbeat.Phase
    DRAINING: Heartbeat.Phase
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PHASE_AGE_S_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAITING_FOR_FIELD_NUMBER: _ClassVar[int]
    INNER_STEPS_PER_S_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    phase: Heartbeat.Phase
    phase_age_s: float
    progress: int
    resident_bytes: int
    waiting_for: str
    inner_steps_per_s: float
    lanes: _containers.RepeatedCompositeFieldContainer[HeldLane]
    workers: int
    lane: int
    def __init__(self, phase: _Optional[_Union[Heartbeat.Phase, str]] = ..., phase_age_s: _Optional[float] = ..., progress: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., waiting_for: _Optional[str] = ..., inner_steps_per_s: _Optional[float] = ..., lanes: _Optional[_Iterable[_Union[HeldLane, _Mapping]]] = ..., workers: _Optional[int] = ..., lane: _Optional[int] = ...) -> None: ...

class GradientEstimatorOut(_message.Message):
    __slots__ = ("push_id", "lane", "fencing_token", "seq", "outer_step", "weight", "mean_loss", "grad", "unroll_info", "compute_s", "parts")
    PUSH_ID_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MEAN_LOSS_FIELD_NUMBER: _ClassVar[int]
    GRAD_FIELD_NUMBER: _ClassVar[int]
    UNROLL_INFO_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    push_id: int
    lane: int
    fencing_token: int
    seq: int
    outer_step: int
    weight: float
    mean_loss: float
    grad: _common_pb2.Tensors
    unroll_info: UnrollInfo
    compute_s: float
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    def __init__(self, push_id: _Optional[int] = ..., lane: _Optional[int] = ..., fencing_token: _Optional[int] = ..., seq: _Optional[int] = ..., outer_step: _Optional[int] = ..., weight: _Optional[float] = ..., mean_loss: _Optional[float] = ..., grad: _Optional[_Union[_common_pb2.Tensors, _Mapping]] = ..., unroll_info: _Optional[_Union[UnrollInfo, _Mapping]] = ..., compute_s: _Optional[float] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("lane", "fencing_token", "seq", "outer_step", "weight", "mean_loss", "unroll_info", "compute_s")
    LANE_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MEAN_LOSS_FIELD_NUMBER: _ClassVar[int]
    UNROLL_INFO_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_S_FIELD_NUMBER: _ClassVar[int]
    lane: int
    fencing_token: int
    seq: int
    outer_step: int
    weight: float
    mean_loss: float
    unroll_info: UnrollInfo
    compute_s: float
    def __init__(self, lane: _Optional[int] = ..., fencing_token: _Optional[int] = ..., seq: _Optional[int] = ..., outer_step: _Optional[int] = ..., weight: _Optional[float] = ..., mean_loss: _Optional[float] = ..., unroll_info: _Optional[_Union[UnrollInfo, _Mapping]] = ..., compute_s: _Optional[float] = ...) -> None: ...

class UnrollInfo(_message.Message):
    __slots__ = ("inner_step_mean", "inner_steps", "diverged_tasks")
    INNER_STEP_MEAN_FIELD_NUMBER: _ClassVar[int]
    INNER_STEPS_FIELD_NUMBER: _ClassVar[int]
    DIVERGED_TASKS_FIELD_NUMBER: _ClassVar[int]
    inner_step_mean: float
    inner_steps: int
    diverged_tasks: int
    def __init__(self, inner_step_mean: _Optional[float] = ..., inner_steps: _Optional[int] = ..., diverged_tasks: _Optional[int] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("lane", "fencing_token", "seq", "bytes", "sha256", "transfer")
    LANE_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    lane: int
    fencing_token: int
    seq: int
    bytes: int
    sha256: str
    transfer: int
    def __init__(self, lane: _Optional[int] = ..., fencing_token: _Optional[int] = ..., seq: _Optional[int] = ..., bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., transfer: _Optional[int] = ...) -> None: ...

class LaneReturn(_message.Message):
    __slots__ = ("lane", "fencing_token", "seq", "reason")
    LANE_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lane: int
    fencing_token: int
    seq: int
    reason: str
    def __init__(self, lane: _Optional[int] = ..., fencing_token: _Optional[int] = ..., seq: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class LaneFailure(_message.Message):
    __slots__ = ("lane", "fencing_token", "seq", "traceback", "report")
    LANE_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    lane: int
    fencing_token: int
    seq: int
    traceback: str
    report: _common_pb2.FailureReport
    def __init__(self, lane: _Optional[int] = ..., fencing_token: _Optional[int] = ..., seq: _Optional[int] = ..., traceback: _Optional[str] = ..., report: _Optional[_Union[_common_pb2.FailureReport, _Mapping]] = ...) -> None: ...

class StackDump(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("level", "text", "failure")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    level: str
    text: str
    failure: _common_pb2.FailureReport
    def __init__(self, level: _Optional[str] = ..., text: _Optional[str] = ..., failure: _Optional[_Union[_common_pb2.FailureReport, _Mapping]] = ...) -> None: ...

class LearnerMessage(_message.Message):
    __slots__ = ("heartbeat_ack", "verdict", "theta", "grant", "revocation", "drain", "goodbye", "stack_request")
    HEARTBEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    THETA_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    STACK_REQUEST_FIELD_NUMBER: _ClassVar[int]
    heartbeat_ack: HeartbeatAck
    verdict: PushVerdict
    theta: ThetaAnnouncement
    grant: LaneGrant
    revocation: LaneRevocation
    drain: Drain
    goodbye: Goodbye
    stack_request: StackRequest
    def __init__(self, heartbeat_ack: _Optional[_Union[HeartbeatAck, _Mapping]] = ..., verdict: _Optional[_Union[PushVerdict, _Mapping]] = ..., theta: _Optional[_Union[ThetaAnnouncement, _Mapping]] = ..., grant: _Optional[_Union[LaneGrant, _Mapping]] = ..., revocation: _Optional[_Union[LaneRevocation, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., stack_request: _Optional[_Union[StackRequest, _Mapping]] = ...) -> None: ...

class StackRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HeartbeatAck(_message.Message):
    __slots__ = ("outer_step", "credits")
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    outer_step: int
    credits: int
    def __init__(self, outer_step: _Optional[int] = ..., credits: _Optional[int] = ...) -> None: ...

class PushVerdict(_message.Message):
    __slots__ = ("push_id", "lane", "seq", "verdict", "outer_step", "credits", "detail", "parts")
    PUSH_ID_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    push_id: int
    lane: int
    seq: int
    verdict: Verdict
    outer_step: int
    credits: int
    detail: str
    parts: _containers.RepeatedCompositeFieldContainer[PartVerdict]
    def __init__(self, push_id: _Optional[int] = ..., lane: _Optional[int] = ..., seq: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., outer_step: _Optional[int] = ..., credits: _Optional[int] = ..., detail: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[PartVerdict, _Mapping]]] = ...) -> None: ...

class PartVerdict(_message.Message):
    __slots__ = ("lane", "seq", "verdict", "detail")
    LANE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    lane: int
    seq: int
    verdict: Verdict
    detail: str
    def __init__(self, lane: _Optional[int] = ..., seq: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class ThetaAnnouncement(_message.Message):
    __slots__ = ("outer_step", "sha256", "inline")
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    outer_step: int
    sha256: str
    inline: bytes
    def __init__(self, outer_step: _Optional[int] = ..., sha256: _Optional[str] = ..., inline: _Optional[bytes] = ...) -> None: ...

class LaneGrant(_message.Message):
    __slots__ = ("lane", "fencing_token", "seq", "snapshot_seq", "snapshot_sha256", "init_outer_step", "replay_outer_steps", "credits", "discard_held")
    LANE_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_SEQ_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_SHA256_FIELD_NUMBER: _ClassVar[int]
    INIT_OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    REPLAY_OUTER_STEPS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    DISCARD_HELD_FIELD_NUMBER: _ClassVar[int]
    lane: int
    fencing_token: int
    seq: int
    snapshot_seq: int
    snapshot_sha256: str
    init_outer_step: int
    replay_outer_steps: _containers.RepeatedScalarFieldContainer[int]
    credits: int
    discard_held: bool
    def __init__(self, lane: _Optional[int] = ..., fencing_token: _Optional[int] = ..., seq: _Optional[int] = ..., snapshot_seq: _Optional[int] = ..., snapshot_sha256: _Optional[str] = ..., init_outer_step: _Optional[int] = ..., replay_outer_steps: _Optional[_Iterable[int]] = ..., credits: _Optional[int] = ..., discard_held: _Optional[bool] = ...) -> None: ...

class LaneRevocation(_message.Message):
    __slots__ = ("lane", "fencing_token", "reason")
    LANE_FIELD_NUMBER: _ClassVar[int]
    FENCING_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lane: int
    fencing_token: int
    reason: str
    def __init__(self, lane: _Optional[int] = ..., fencing_token: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("reason", "deadline_s")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    reason: str
    deadline_s: float
    def __init__(self, reason: _Optional[str] = ..., deadline_s: _Optional[float] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "detail")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Goodbye.Reason]
        FINISHED: _ClassVar[Goodbye.Reason]
        STOPPED: _ClassVar[Goodbye.Reason]
        DRAINED: _ClassVar[Goodbye.Reason]
        SUPERSEDED: _ClassVar[Goodbye.Reason]
        EXPIRED: _ClassVar[Goodbye.Reason]
        FAILED: _ClassVar[Goodbye.Reason]
        EVICTED: _ClassVar[Goodbye.Reason]
    REASON_UNSPECIFIED: Goodbye.Reason
    FINISHED: Goodbye.Reason
    STOPPED: Goodbye.Reason
    DRAINED: Goodbye.Reason
    SUPERSEDED: Goodbye.Reason
    EXPIRED: Goodbye.Reason
    FAILED: Goodbye.Reason
    EVICTED: Goodbye.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: Goodbye.Reason
    detail: str
    def __init__(self, reason: _Optional[_Union[Goodbye.Reason, str]] = ..., detail: _Optional[str] = ...) -> None: ...

class GetThetaRequest(_message.Message):
    __slots__ = ("outer_step",)
    OUTER_STEP_FIELD_NUMBER: _ClassVar[int]
    outer_step: int
    def __init__(self, outer_step: _Optional[int] = ...) -> None: ...

class GetSnapshotRequest(_message.Message):
    __slots__ = ("lane", "seq")
    LANE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    lane: int
    seq: int
    def __init__(self, lane: _Optional[int] = ..., seq: _Optional[int] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("session_id", "reason", "unfit")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    UNFIT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    reason: str
    unfit: bool
    def __init__(self, session_id: _Optional[str] = ..., reason: _Optional[str] = ..., unfit: _Optional[bool] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
