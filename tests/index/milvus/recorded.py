"""A Milvus cluster that replays answers, and keeps what it was asked: for what Milvus Lite cannot do.

The answers are written after milvus-proto and the codes of Milvus's pkg/util/merr; they were not taken from a live
cluster. Of a collection that was created it tells back schema and properties.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import json_format, message_factory

Answer = Mapping[str, Any]
ABSENT = {"status": {"code": 100, "errorCode": "CollectionNotExists", "reason": "collection not found"}}
NO_ALIAS = {"status": {"code": 1600, "errorCode": "UnexpectedError", "reason": "alias not found"}}
TOO_FEW_NODES = {
    "code": 302,
    "errorCode": "UnexpectedError",
    "reason": "call query coordinator LoadCollection: resource group node not enough",
}
RATE_LIMITED = {"status": {"code": 8, "errorCode": "RateLimit", "reason": "request is rejected by grpc RateLimiter"}}
NOT_LOADED = {"status": {"code": 101, "errorCode": "UnexpectedError", "reason": "collection not loaded"}}
NO_NODE = {
    "status": {"code": 503, "errorCode": "UnexpectedError", "reason": "no available channel", "retriable": True}
}
NO_INDEX = {"status": {"code": 700, "errorCode": "IndexNotExist", "reason": "index not found"}}
INDEXED = {"indexDescriptions": [{"fieldName": "dense", "indexName": "dense", "state": "Finished"}]}


def counted(rows: int) -> Answer:
    """The answer to count(*)."""
    data = {"fieldName": "count(*)", "type": "Int64", "scalars": {"longData": {"data": [str(rows)]}}}
    return {"fieldsData": [data], "outputFields": ["count(*)"]}


def hit(key: int, score: float) -> Answer:
    """The answer to a search of one query that finds one row."""
    ids = {"intId": {"data": [str(key)]}}
    found = {"numQueries": "1", "topK": "1", "scores": [score], "ids": ids, "topks": ["1"]}
    return {"results": {**found, "primaryFieldName": "row"}}


def row(key: int, vector: Sequence[float]) -> Answer:
    """The answer to a query for one passage."""
    texts = {"doc_id": f"d{key}", "title": f"title{key}", "text": "text"}
    fields: list[Any] = [
        {"fieldName": "row", "type": "Int64", "scalars": {"longData": {"data": [str(key)]}}},
        {"fieldName": "number", "type": "Int32", "scalars": {"intData": {"data": [0]}}},
        *(
            {"fieldName": name, "type": "VarChar", "scalars": {"stringData": {"data": [text]}}}
            for name, text in texts.items()
        ),
        {
            "fieldName": "dense",
            "type": "FloatVector",
            "vectors": {"dim": str(len(vector)), "floatVector": {"data": list(vector)}},
        },
    ]
    return {"fieldsData": fields, "outputFields": [each["fieldName"] for each in fields]}


CLUSTER: Mapping[str, Sequence[Answer]] = {
    "Connect": [{"serverInfo": {"buildTags": "v2.6.4", "deployMode": "DISTRIBUTED"}, "identifier": "7"}],
    "GetVersion": [{"version": "v2.6.4"}],
    "DescribeAlias": [NO_ALIAS],
    "DescribeIndex": [NO_INDEX, INDEXED],
    "GetLoadState": [{"state": "LoadStateNotLoad"}]
    + [{"state": "LoadStateLoading"}] * 2
    + [{"state": "LoadStateLoaded"}],
    "GetLoadingProgress": [{"progress": "30"}, {"progress": "70"}],
    "GetFlushState": [{"flushed": True}],
    "Query": [counted(3)],
}


class Cluster:
    """See the module. answers: method -> answers, one a call, the last again and again."""

    def __init__(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        from pymilvus.grpc_gen import milvus_pb2

        self._answers = {name: list(each) for name, each in answers.items()}
        self._created: dict[str, Any] = {}
        self.asked: defaultdict[str, list[Any]] = defaultdict(list)
        self.tokens: set[str] = set()
        service = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"]
        self.name = service.full_name
        self.handlers = {method.name: self._handler(method) for method in service.methods}

    def _handler(self, method: Any) -> Any:
        request = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)

        def reply(asked: Any, context: Any) -> Any:
            self.asked[method.name].append(asked)
            self.tokens |= {str(value) for key, value in context.invocation_metadata() if key == "authorization"}
            replies = self._answers.get(
                method.name, [self._told(asked) if method.name == "DescribeCollection" else {}]
            )
            found = replies.pop(0) if len(replies) > 1 else replies[0]
            if method.name == "CreateCollection":
                self._created[asked.collection_name] = asked
            return json_format.ParseDict(found, answer())

        return grpc.unary_unary_rpc_method_handler(reply, request.FromString, answer.SerializeToString)

    def _told(self, asked: Any) -> Answer:
        from pymilvus.grpc_gen import schema_pb2

        created = self._created.get(asked.collection_name)
        if created is None:
            return ABSENT
        schema = json_format.MessageToDict(schema_pb2.CollectionSchema.FromString(created.schema))
        properties = [{"key": each.key, "value": each.value} for each in created.properties]
        return {"collectionName": asked.collection_name, "schema": schema, "properties": properties}


@contextmanager
def cluster(answers: Mapping[str, Sequence[Answer]] = CLUSTER) -> Iterator[tuple[Cluster, str]]:
    """(the double, its address) while it answers."""
    double = Cluster(answers)
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(double.name, double.handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield double, f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
