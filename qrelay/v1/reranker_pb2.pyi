from qrelay.v1 import records_pb2 as _records_pb2
from qrelay.v1 import service_info_pb2 as _service_info_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RerankRequest(_message.Message):
    __slots__ = ("candidate_sets", "max_candidates")
    CANDIDATE_SETS_FIELD_NUMBER: _ClassVar[int]
    MAX_CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    candidate_sets: _containers.RepeatedCompositeFieldContainer[_records_pb2.CandidateSet]
    max_candidates: int
    def __init__(self, candidate_sets: _Optional[_Iterable[_Union[_records_pb2.CandidateSet, _Mapping]]] = ..., max_candidates: _Optional[int] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RerankResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RerankResult, _Mapping]]] = ...) -> None: ...

class RerankResult(_message.Message):
    __slots__ = ("candidate_set", "error")
    CANDIDATE_SET_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    candidate_set: _records_pb2.CandidateSet
    error: _service_info_pb2.ItemError
    def __init__(self, candidate_set: _Optional[_Union[_records_pb2.CandidateSet, _Mapping]] = ..., error: _Optional[_Union[_service_info_pb2.ItemError, _Mapping]] = ...) -> None: ...

class StreamRerankRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: RerankRequest
    def __init__(self, request: _Optional[_Union[RerankRequest, _Mapping]] = ...) -> None: ...

class StreamRerankResponse(_message.Message):
    __slots__ = ("response",)
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    response: RerankResponse
    def __init__(self, response: _Optional[_Union[RerankResponse, _Mapping]] = ...) -> None: ...

class RerankerServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RerankerServiceGetInfoResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: _service_info_pb2.ServiceInfo
    def __init__(self, info: _Optional[_Union[_service_info_pb2.ServiceInfo, _Mapping]] = ...) -> None: ...
