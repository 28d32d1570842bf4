from qrelay.v1 import records_pb2 as _records_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("query", "candidate_set", "judged_set", "dead_letter")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_SET_FIELD_NUMBER: _ClassVar[int]
    JUDGED_SET_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_FIELD_NUMBER: _ClassVar[int]
    query: _records_pb2.Query
    candidate_set: _records_pb2.CandidateSet
    judged_set: _records_pb2.JudgedSet
    dead_letter: _records_pb2.DeadLetter
    def __init__(self, query: _Optional[_Union[_records_pb2.Query, _Mapping]] = ..., candidate_set: _Optional[_Union[_records_pb2.CandidateSet, _Mapping]] = ..., judged_set: _Optional[_Union[_records_pb2.JudgedSet, _Mapping]] = ..., dead_letter: _Optional[_Union[_records_pb2.DeadLetter, _Mapping]] = ...) -> None: ...
