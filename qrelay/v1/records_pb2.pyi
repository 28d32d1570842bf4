import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Query(_message.Message):
    __slots__ = ("query_id", "text", "collection", "submitted_at", "attributes", "reference_answers", "round")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    query_id: str
    text: str
    collection: str
    submitted_at: _timestamp_pb2.Timestamp
    attributes: _containers.ScalarMap[str, str]
    reference_answers: _containers.RepeatedScalarFieldContainer[str]
    round: int
    def __init__(self, query_id: _Optional[str] = ..., text: _Optional[str] = ..., collection: _Optional[str] = ..., submitted_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., reference_answers: _Optional[_Iterable[str]] = ..., round: _Optional[int] = ...) -> None: ...

class Passage(_message.Message):
    __slots__ = ("passage_id", "doc_id", "title", "text", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PASSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    DOC_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    passage_id: str
    doc_id: str
    title: str
    text: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, passage_id: _Optional[str] = ..., doc_id: _Optional[str] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("system", "score", "rank")
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    system: str
    score: float
    rank: int
    def __init__(self, system: _Optional[str] = ..., score: _Optional[float] = ..., rank: _Optional[int] = ...) -> None: ...

class Candidate(_message.Message):
    __slots__ = ("passage", "scores", "sampled")
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_FIELD_NUMBER: _ClassVar[int]
    passage: Passage
    scores: _containers.RepeatedCompositeFieldContainer[Score]
    sampled: bool
    def __init__(self, passage: _Optional[_Union[Passage, _Mapping]] = ..., scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ..., sampled: _Optional[bool] = ...) -> None: ...

class TraceStep(_message.Message):
    __slots__ = ("stage", "replica", "model", "queue_seconds", "compute_seconds")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    replica: str
    model: str
    queue_seconds: float
    compute_seconds: float
    def __init__(self, stage: _Optional[str] = ..., replica: _Optional[str] = ..., model: _Optional[str] = ..., queue_seconds: _Optional[float] = ..., compute_seconds: _Optional[float] = ...) -> None: ...

class CandidateSet(_message.Message):
    __slots__ = ("query", "candidates", "index_version", "trace")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    INDEX_VERSION_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    query: Query
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    index_version: str
    trace: _containers.RepeatedCompositeFieldContainer[TraceStep]
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., index_version: _Optional[str] = ..., trace: _Optional[_Iterable[_Union[TraceStep, _Mapping]]] = ...) -> None: ...

class JudgeIdentity(_message.Message):
    __slots__ = ("model", "revision", "quantisation", "prompt_hash", "strategy", "scale", "decoding")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    QUANTISATION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_HASH_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    DECODING_FIELD_NUMBER: _ClassVar[int]
    model: str
    revision: str
    quantisation: str
    prompt_hash: str
    strategy: str
    scale: str
    decoding: str
    def __init__(self, model: _Optional[str] = ..., revision: _Optional[str] = ..., quantisation: _Optional[str] = ..., prompt_hash: _Optional[str] = ..., strategy: _Optional[str] = ..., scale: _Optional[str] = ..., decoding: _Optional[str] = ...) -> None: ...

class Utility(_message.Message):
    __slots__ = ("nll", "nll_without_passage", "selected", "rank")
    NLL_FIELD_NUMBER: _ClassVar[int]
    NLL_WITHOUT_PASSAGE_FIELD_NUMBER: _ClassVar[int]
    SELECTED_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    nll: float
    nll_without_passage: float
    selected: bool
    rank: int
    def __init__(self, nll: _Optional[float] = ..., nll_without_passage: _Optional[float] = ..., selected: _Optional[bool] = ..., rank: _Optional[int] = ...) -> None: ...

class Graded(_message.Message):
    __slots__ = ("grade", "min_grade", "probabilities", "expected_relevance", "entropy", "p_relevant", "calibration", "utility")
    GRADE_FIELD_NUMBER: _ClassVar[int]
    MIN_GRADE_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    P_RELEVANT_FIELD_NUMBER: _ClassVar[int]
    CALIBRATION_FIELD_NUMBER: _ClassVar[int]
    UTILITY_FIELD_NUMBER: _ClassVar[int]
    grade: int
    min_grade: int
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    expected_relevance: float
    entropy: float
    p_relevant: float
    calibration: str
    utility: Utility
    def __init__(self, grade: _Optional[int] = ..., min_grade: _Optional[int] = ..., probabilities: _Optional[_Iterable[float]] = ..., expected_relevance: _Optional[float] = ..., entropy: _Optional[float] = ..., p_relevant: _Optional[float] = ..., calibration: _Optional[str] = ..., utility: _Optional[_Union[Utility, _Mapping]] = ...) -> None: ...

class Missing(_message.Message):
    __slots__ = ("reason", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    detail: str
    def __init__(self, reason: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class Judgment(_message.Message):
    __slots__ = ("passage_id", "judgment_key", "graded", "missing", "judge", "judged_at", "cached", "raw_reply", "prompt_tokens")
    PASSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    JUDGMENT_KEY_FIELD_NUMBER: _ClassVar[int]
    GRADED_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    JUDGE_FIELD_NUMBER: _ClassVar[int]
    JUDGED_AT_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    RAW_REPLY_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    passage_id: str
    judgment_key: str
    graded: Graded
    missing: Missing
    judge: JudgeIdentity
    judged_at: _timestamp_pb2.Timestamp
    cached: bool
    raw_reply: str
    prompt_tokens: int
    def __init__(self, passage_id: _Optional[str] = ..., judgment_key: _Optional[str] = ..., graded: _Optional[_Union[Graded, _Mapping]] = ..., missing: _Optional[_Union[Missing, _Mapping]] = ..., judge: _Optional[_Union[JudgeIdentity, _Mapping]] = ..., judged_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cached: _Optional[bool] = ..., raw_reply: _Optional[str] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...

class JudgedSet(_message.Message):
    __slots__ = ("candidate_set", "judgments")
    CANDIDATE_SET_FIELD_NUMBER: _ClassVar[int]
    JUDGMENTS_FIELD_NUMBER: _ClassVar[int]
    candidate_set: CandidateSet
    judgments: _containers.RepeatedCompositeFieldContainer[Judgment]
    def __init__(self, candidate_set: _Optional[_Union[CandidateSet, _Mapping]] = ..., judgments: _Optional[_Iterable[_Union[Judgment, _Mapping]]] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("dead_letter_id", "stage", "collection", "query_id", "query_text", "reason", "detail", "attempts", "failed_at", "subject", "headers", "payload", "round")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DEAD_LETTER_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_TEXT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FAILED_AT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    dead_letter_id: str
    stage: str
    collection: str
    query_id: str
    query_text: str
    reason: str
    detail: str
    attempts: int
    failed_at: _timestamp_pb2.Timestamp
    subject: str
    headers: _containers.ScalarMap[str, str]
    payload: bytes
    round: int
    def __init__(self, dead_letter_id: _Optional[str] = ..., stage: _Optional[str] = ..., collection: _Optional[str] = ..., query_id: _Optional[str] = ..., query_text: _Optional[str] = ..., reason: _Optional[str] = ..., detail: _Optional[str] = ..., attempts: _Optional[int] = ..., failed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., subject: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., payload: _Optional[bytes] = ..., round: _Optional[int] = ...) -> None: ...
