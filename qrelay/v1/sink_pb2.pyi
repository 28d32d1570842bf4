import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from qrelay.v1 import records_pb2 as _records_pb2
from qrelay.v1 import service_info_pb2 as _service_info_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IngestStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INGEST_STATUS_UNSPECIFIED: _ClassVar[IngestStatus]
    INGEST_STATUS_COMMITTED: _ClassVar[IngestStatus]
    INGEST_STATUS_DUPLICATE: _ClassVar[IngestStatus]
    INGEST_STATUS_FORGOTTEN: _ClassVar[IngestStatus]

class ExportFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPORT_FORMAT_UNSPECIFIED: _ClassVar[ExportFormat]
    EXPORT_FORMAT_QRELS: _ClassVar[ExportFormat]
    EXPORT_FORMAT_TRIPLES: _ClassVar[ExportFormat]
    EXPORT_FORMAT_RUN: _ClassVar[ExportFormat]
    EXPORT_FORMAT_MSMARCO: _ClassVar[ExportFormat]
    EXPORT_FORMAT_MSMARCO_IDS: _ClassVar[ExportFormat]
    EXPORT_FORMAT_TEVATRON: _ClassVar[ExportFormat]

class QueryState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUERY_STATE_UNSPECIFIED: _ClassVar[QueryState]
    QUERY_STATE_PENDING: _ClassVar[QueryState]
    QUERY_STATE_COMMITTED: _ClassVar[QueryState]
    QUERY_STATE_DEAD: _ClassVar[QueryState]
    QUERY_STATE_FORGOTTEN: _ClassVar[QueryState]

class DeadLetterState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEAD_LETTER_STATE_UNSPECIFIED: _ClassVar[DeadLetterState]
    DEAD_LETTER_STATE_OPEN: _ClassVar[DeadLetterState]
    DEAD_LETTER_STATE_REPLAYED: _ClassVar[DeadLetterState]
    DEAD_LETTER_STATE_RESOLVED: _ClassVar[DeadLetterState]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_CANDIDATE: _ClassVar[ModelState]
    MODEL_STATE_PROMOTED: _ClassVar[ModelState]
    MODEL_STATE_REJECTED: _ClassVar[ModelState]
    MODEL_STATE_RETIRED: _ClassVar[ModelState]
INGEST_STATUS_UNSPECIFIED: IngestStatus
INGEST_STATUS_COMMITTED: IngestStatus
INGEST_STATUS_DUPLICATE: IngestStatus
INGEST_STATUS_FORGOTTEN: IngestStatus
EXPORT_FORMAT_UNSPECIFIED: ExportFormat
EXPORT_FORMAT_QRELS: ExportFormat
EXPORT_FORMAT_TRIPLES: ExportFormat
EXPORT_FORMAT_RUN: ExportFormat
EXPORT_FORMAT_MSMARCO: ExportFormat
EXPORT_FORMAT_MSMARCO_IDS: ExportFormat
EXPORT_FORMAT_TEVATRON: ExportFormat
QUERY_STATE_UNSPECIFIED: QueryState
QUERY_STATE_PENDING: QueryState
QUERY_STATE_COMMITTED: QueryState
QUERY_STATE_DEAD: QueryState
QUERY_STATE_FORGOTTEN: QueryState
DEAD_LETTER_STATE_UNSPECIFIED: DeadLetterState
DEAD_LETTER_STATE_OPEN: DeadLetterState
DEAD_LETTER_STATE_REPLAYED: DeadLetterState
DEAD_LETTER_STATE_RESOLVED: DeadLetterState
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_CANDIDATE: ModelState
MODEL_STATE_PROMOTED: ModelState
MODEL_STATE_REJECTED: ModelState
MODEL_STATE_RETIRED: ModelState

class IngestRequest(_message.Message):
    __slots__ = ("judged_sets", "rejudgment")
    JUDGED_SETS_FIELD_NUMBER: _ClassVar[int]
    REJUDGMENT_FIELD_NUMBER: _ClassVar[int]
    judged_sets: _containers.RepeatedCompositeFieldContainer[_records_pb2.JudgedSet]
    rejudgment: bool
    def __init__(self, judged_sets: _Optional[_Iterable[_Union[_records_pb2.JudgedSet, _Mapping]]] = ..., rejudgment: _Optional[bool] = ...) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[IngestResult]
    def __init__(self, results: _Optional[_Iterable[_Union[IngestResult, _Mapping]]] = ...) -> None: ...

class IngestResult(_message.Message):
    __slots__ = ("status", "error", "judgments_added")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    JUDGMENTS_ADDED_FIELD_NUMBER: _ClassVar[int]
    status: IngestStatus
    error: _service_info_pb2.ItemError
    judgments_added: int
    def __init__(self, status: _Optional[_Union[IngestStatus, str]] = ..., error: _Optional[_Union[_service_info_pb2.ItemError, _Mapping]] = ..., judgments_added: _Optional[int] = ...) -> None: ...

class ListJudgedSetsRequest(_message.Message):
    __slots__ = ("collection", "where", "after_query_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    AFTER_QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    where: str
    after_query_id: str
    def __init__(self, collection: _Optional[str] = ..., where: _Optional[str] = ..., after_query_id: _Optional[str] = ...) -> None: ...

class ListJudgedSetsResponse(_message.Message):
    __slots__ = ("judged_set",)
    JUDGED_SET_FIELD_NUMBER: _ClassVar[int]
    judged_set: _records_pb2.JudgedSet
    def __init__(self, judged_set: _Optional[_Union[_records_pb2.JudgedSet, _Mapping]] = ...) -> None: ...

class StreamIngestRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: IngestRequest
    def __init__(self, request: _Optional[_Union[IngestRequest, _Mapping]] = ...) -> None: ...

class StreamIngestResponse(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: IngestResponse
    def __init__(self, response: _Optional[_Union[IngestResponse, _Mapping]] = ...) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("collection", "format", "judge", "unqualified", "where", "overrides", "system", "unmeasured")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    JUDGE_FIELD_NUMBER: _ClassVar[int]
    UNQUALIFIED_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    UNMEASURED_FIELD_NUMBER: _ClassVar[int]
    collection: str
    format: ExportFormat
    judge: str
    unqualified: bool
    where: str
    overrides: bool
    system: str
    unmeasured: bool
    def __init__(self, collection: _Optional[str] = ..., format: _Optional[_Union[ExportFormat, str]] = ..., judge: _Optional[str] = ..., unqualified: _Optional[bool] = ..., where: _Optional[str] = ..., overrides: _Optional[bool] = ..., system: _Optional[str] = ..., unmeasured: _Optional[bool] = ...) -> None: ...

class ExportManifest(_message.Message):
    __slots__ = ("collection", "format", "rows", "queries", "missing_judgments", "sha256", "qualification", "manifest_json")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    MISSING_JUDGMENTS_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    QUALIFICATION_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    collection: str
    format: ExportFormat
    rows: int
    queries: int
    missing_judgments: int
    sha256: str
    qualification: str
    manifest_json: str
    def __init__(self, collection: _Optional[str] = ..., format: _Optional[_Union[ExportFormat, str]] = ..., rows: _Optional[int] = ..., queries: _Optional[int] = ..., missing_judgments: _Optional[int] = ..., sha256: _Optional[str] = ..., qualification: _Optional[str] = ..., manifest_json: _Optional[str] = ...) -> None: ...

class ExportResponse(_message.Message):
    __slots__ = ("chunk", "manifest")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    manifest: ExportManifest
    def __init__(self, chunk: _Optional[bytes] = ..., manifest: _Optional[_Union[ExportManifest, _Mapping]] = ...) -> None: ...

class GetQueryStatesRequest(_message.Message):
    __slots__ = ("collection", "query_ids", "round", "wait_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_IDS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    query_ids: _containers.RepeatedScalarFieldContainer[str]
    round: int
    wait_seconds: float
    def __init__(self, collection: _Optional[str] = ..., query_ids: _Optional[_Iterable[str]] = ..., round: _Optional[int] = ..., wait_seconds: _Optional[float] = ...) -> None: ...

class GetQueryStatesResponse(_message.Message):
    __slots__ = ("states",)
    STATES_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedScalarFieldContainer[QueryState]
    def __init__(self, states: _Optional[_Iterable[_Union[QueryState, str]]] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class CollectionStats(_message.Message):
    __slots__ = ("collection", "queries", "judgments", "missing_judgments", "cached_judgments", "prompt_tokens", "open_dead_letters", "judged_pairs")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    JUDGMENTS_FIELD_NUMBER: _ClassVar[int]
    MISSING_JUDGMENTS_FIELD_NUMBER: _ClassVar[int]
    CACHED_JUDGMENTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OPEN_DEAD_LETTERS_FIELD_NUMBER: _ClassVar[int]
    JUDGED_PAIRS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    queries: int
    judgments: int
    missing_judgments: int
    cached_judgments: int
    prompt_tokens: int
    open_dead_letters: int
    judged_pairs: int
    def __init__(self, collection: _Optional[str] = ..., queries: _Optional[int] = ..., judgments: _Optional[int] = ..., missing_judgments: _Optional[int] = ..., cached_judgments: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., open_dead_letters: _Optional[int] = ..., judged_pairs: _Optional[int] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("collections",)
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.RepeatedCompositeFieldContainer[CollectionStats]
    def __init__(self, collections: _Optional[_Iterable[_Union[CollectionStats, _Mapping]]] = ...) -> None: ...

class ListDeadLettersRequest(_message.Message):
    __slots__ = ("collection", "include_closed", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_CLOSED_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    include_closed: bool
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., include_closed: _Optional[bool] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class DeadLetterEntry(_message.Message):
    __slots__ = ("dead_letter", "state", "closed_at")
    DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CLOSED_AT_FIELD_NUMBER: _ClassVar[int]
    dead_letter: _records_pb2.DeadLetter
    state: DeadLetterState
    closed_at: _timestamp_pb2.Timestamp
    def __init__(self, dead_letter: _Optional[_Union[_records_pb2.DeadLetter, _Mapping]] = ..., state: _Optional[_Union[DeadLetterState, str]] = ..., closed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListDeadLettersResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[DeadLetterEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[DeadLetterEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReplayDeadLettersRequest(_message.Message):
    __slots__ = ("dead_letter_ids", "all")
    DEAD_LETTER_IDS_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    dead_letter_ids: _containers.RepeatedScalarFieldContainer[str]
    all: bool
    def __init__(self, dead_letter_ids: _Optional[_Iterable[str]] = ..., all: _Optional[bool] = ...) -> None: ...

class ReplayDeadLettersResponse(_message.Message):
    __slots__ = ("replayed", "skipped_ids")
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_IDS_FIELD_NUMBER: _ClassVar[int]
    replayed: int
    skipped_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, replayed: _Optional[int] = ..., skipped_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class StartTrainingRequest(_message.Message):
    __slots__ = ("collection", "unmeasured", "unqualified")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    UNMEASURED_FIELD_NUMBER: _ClassVar[int]
    UNQUALIFIED_FIELD_NUMBER: _ClassVar[int]
    collection: str
    unmeasured: bool
    unqualified: bool
    def __init__(self, collection: _Optional[str] = ..., unmeasured: _Optional[bool] = ..., unqualified: _Optional[bool] = ...) -> None: ...

class StartTrainingResponse(_message.Message):
    __slots__ = ("trigger", "change_no", "job")
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    CHANGE_NO_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    trigger: int
    change_no: int
    job: str
    def __init__(self, trigger: _Optional[int] = ..., change_no: _Optional[int] = ..., job: _Optional[str] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("version", "slot", "state", "serving", "parent", "base", "created_at", "passed", "against", "tainted_by", "pruned", "manifest_json")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    AGAINST_FIELD_NUMBER: _ClassVar[int]
    TAINTED_BY_FIELD_NUMBER: _ClassVar[int]
    PRUNED_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_JSON_FIELD_NUMBER: _ClassVar[int]
    version: str
    slot: str
    state: ModelState
    serving: bool
    parent: str
    base: str
    created_at: _timestamp_pb2.Timestamp
    passed: bool
    against: str
    tainted_by: _containers.RepeatedScalarFieldContainer[str]
    pruned: bool
    manifest_json: str
    def __init__(self, version: _Optional[str] = ..., slot: _Optional[str] = ..., state: _Optional[_Union[ModelState, str]] = ..., serving: _Optional[bool] = ..., parent: _Optional[str] = ..., base: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., passed: _Optional[bool] = ..., against: _Optional[str] = ..., tainted_by: _Optional[_Iterable[str]] = ..., pruned: _Optional[bool] = ..., manifest_json: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("slot",)
    SLOT_FIELD_NUMBER: _ClassVar[int]
    slot: str
    def __init__(self, slot: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ...) -> None: ...

class PromoteModelRequest(_message.Message):
    __slots__ = ("version", "by", "reason")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    version: str
    by: str
    reason: str
    def __init__(self, version: _Optional[str] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PromoteModelResponse(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    def __init__(self, changed: _Optional[bool] = ...) -> None: ...

class RollbackModelRequest(_message.Message):
    __slots__ = ("slot", "to", "by", "reason")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    slot: str
    to: str
    by: str
    reason: str
    def __init__(self, slot: _Optional[str] = ..., to: _Optional[str] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RollbackModelResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class SinkServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SinkServiceGetInfoResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: _service_info_pb2.ServiceInfo
    def __init__(self, info: _Optional[_Union[_service_info_pb2.ServiceInfo, _Mapping]] = ...) -> None: ...
