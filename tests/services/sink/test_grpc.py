"""The sink's gRPC endpoint through a real channel: listing, judging again, exporting."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from click.testing import CliRunner

from qrelay import wire
from qrelay.cli.dlq import dlq
from qrelay.client.patience import Patience
from qrelay.client.places import Places
from qrelay.client.waiting import states
from qrelay.config import GrpcSettings
from qrelay.identity import judge_digest
from qrelay.labels.exports.request import Options
from qrelay.labels.ledger import forgetting
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.labels.settings import SinkSettings
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.dead_letters import REPLAY_HEADER
from qrelay.runtime.intake import MAX_IDS
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.topology import Queue
from qrelay.services.sink.service import SERVICE, DeadLetterStage, IngestStage
from qrelay.services.sink.sink import Sink, load_sink
from qrelay.types import DeadLetter, JudgedSet, Missing
from qrelay.v1 import sink_pb2 as pb
from qrelay.v1 import sink_pb2_grpc
from tests import samples
from tests.conftest import LONG_S
from tests.labels.builders import JUDGE, OTHER_JUDGE, dead_letter, graded, judged_set, judgment
from tests.labels.exporting import export_file
from tests.labels.test_qualification import report_file, use

COMMITTED, DUPLICATE = pb.INGEST_STATUS_COMMITTED, pb.INGEST_STATUS_DUPLICATE


@asynccontextmanager
async def serving(folder: Path, broker: Any = None, **settings: Any) -> AsyncIterator[tuple[Any, Sink]]:
    """A stub on a running sink, and its core."""
    effective = SinkSettings(data_dir=folder, grpc=GrpcSettings(), **settings)
    context: ServiceContext[Any, Any] = ServiceContext("sink", effective, "s1")
    server = GrpcServer(effective.grpc, SERVICE.grpc_name)
    SERVICE.add_servicer(server.raw, context)
    address = await server.start()
    core = context.core = load_sink(effective)
    if broker is not None:
        context.broker = broker
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = sink_pb2_grpc.SinkServiceStub(channel)
            stub.address = address
            yield stub, core
    finally:
        await server.drain(1)
        core.close()


async def ingest(stub: Any, sets: Sequence[JudgedSet], *, rejudgment: bool = False) -> list[Any]:
    request = pb.IngestRequest(judged_sets=[wire.to_proto(each) for each in sets], rejudgment=rejudgment)
    return list((await stub.Ingest(request, timeout=LONG_S)).results)


async def listed(stub: Any, where: str = "", collection: str = "docs", after: str = "") -> list[JudgedSet]:
    request = pb.ListJudgedSetsRequest(collection=collection, where=where, after_query_id=after)
    return [wire.from_proto(each.judged_set) async for each in stub.ListJudgedSets(request, timeout=LONG_S)]


def judged_again(record: JudgedSet) -> JudgedSet:
    """As a judge answers a listed set: its sampled passages, graded 1 by another judge."""
    chosen = [c.passage.passage_id for c in record.candidate_set.candidates if c.sampled]
    return JudgedSet(record.candidate_set, tuple(judgment(p, graded(1), OTHER_JUDGE) for p in chosen))


async def exported(stub: Any, kind: pb.ExportFormat, **fields: Any) -> tuple[bytes, pb.ExportManifest]:
    request = pb.ExportRequest(collection="docs", format=kind, **fields)
    parts = [part async for part in stub.Export(request, timeout=LONG_S)]
    return b"".join(part.chunk for part in parts[:-1]), parts[-1].manifest


async def test_sets_are_listed_judged_again_and_sent_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, _):
        await ingest(stub, [judged_set("q1"), judged_set("q2", outcomes=[graded(0), graded(2)])])
        sets = await listed(stub, "grade>=2")
        assert [each.candidate_set.query.query_id for each in sets] == ["q1", "q2"]
        results = await ingest(stub, [judged_again(each) for each in sets], rejudgment=True)
        assert [(each.status, each.judgments_added) for each in results] == [(COMMITTED, 1), (COMMITTED, 1)]
        results = await ingest(stub, [judged_again(each) for each in sets], rejudgment=True)
        assert [(each.status, each.judgments_added) for each in results] == [(DUPLICATE, 0), (DUPLICATE, 0)]
        assert await listed(stub, "grade>=2") == []
        qrels, _ = await exported(stub, pb.EXPORT_FORMAT_QRELS)
        assert qrels == b"q1 0 d0#0 1\nq1 0 d1#0 0\nq2 0 d0#0 0\nq2 0 d1#0 1\n"


async def test_a_stream_of_re_judgments_is_answered_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, _):
        await ingest(stub, [judged_set(f"q{n}") for n in range(5)])
        sets = await listed(stub, after="q1")
        requests = [
            pb.StreamIngestRequest(
                request=pb.IngestRequest(judged_sets=[wire.to_proto(judged_again(each))], rejudgment=True)
            )
            for each in sets
        ]
        answers = [answer async for answer in stub.StreamIngest(iter(requests), timeout=LONG_S)]
        assert [answer.response.results[0].judgments_added for answer in answers] == [3, 3, 3]


async def test_without_the_flag_a_re_judgment_is_a_duplicate_that_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, core):
        await ingest(stub, [judged_set()])
        before = core.ledger.stats("docs")
        (result,) = await ingest(stub, [judged_again(judged_set())])
        assert result.status == DUPLICATE
        assert core.ledger.stats("docs") == before


async def test_a_query_that_is_not_there_is_refused_by_itself(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, _):
        await ingest(stub, [judged_set("q1")])
        results = await ingest(
            stub, [judged_again(judged_set("q9")), judged_again(judged_set("q1"))], rejudgment=True
        )
        assert "not in the ledger" in results[0].error.message
        assert results[0].error.query_id == "q9"
        assert results[1].status == COMMITTED


@pytest.mark.parametrize(
    ("where", "collection", "code", "words"),
    [
        ("grade=two", "docs", grpc.StatusCode.INVALID_ARGUMENT, "allowed are"),
        ("strategy=binary", "docs", grpc.StatusCode.INVALID_ARGUMENT, "judge-1.5b"),
        ("", "wiki", grpc.StatusCode.NOT_FOUND, "holds docs"),
    ],
)
async def test_a_listing_that_cannot_be_is_refused_in_words(
    tmp_path: Path, where: str, collection: str, code: grpc.StatusCode, words: str
) -> None:
    async with serving(tmp_path) as (stub, _):
        await ingest(stub, [judged_set()])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(stub, where, collection)
        assert caught.value.code() == code
        assert words in str(caught.value.details())


async def test_counts_tell_measurements_from_pairs(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, _):
        await ingest(stub, [judged_set(outcomes=[graded(3), Missing("timeout")])])
        await ingest(stub, [judged_again(each) for each in await listed(stub)], rejudgment=True)
        (stats,) = (await stub.GetStats(pb.GetStatsRequest(), timeout=LONG_S)).collections
        assert (stats.judgments, stats.judged_pairs, stats.missing_judgments) == (4, 2, 1)


async def test_training_data_of_an_unqualified_judge_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    report = report_file(tmp_path, negatives=use("not_qualified", "too many false negatives", {"npv": 0.71}))
    async with serving(tmp_path, qualification=str(report)) as (stub, _):
        await ingest(stub, [judged_set()])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await exported(stub, pb.EXPORT_FORMAT_TRIPLES)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert "npv 0.71" in str(caught.value.details())
        triples, manifest = await exported(stub, pb.EXPORT_FORMAT_TRIPLES, unqualified=True)
        assert triples
        assert manifest.qualification == "not_qualified"
        whole = json.loads(manifest.manifest_json)
        assert whole["sha256"] == manifest.sha256 == hashlib.sha256(triples).hexdigest()
        assert whole["qualification"]["unqualified"] is True


async def test_an_export_may_name_its_judge(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, _):
        await ingest(stub, [judged_set()])
        binary = dataclasses.replace(JUDGE, strategy="binary")
        again = JudgedSet(judged_set().candidate_set, (judgment("d0#0", graded(1), binary),))
        await ingest(stub, [again], rejudgment=True)
        for judge in ("binary", judge_digest(binary)[:9]):
            qrels, manifest = await exported(stub, pb.EXPORT_FORMAT_QRELS, judge=judge)
            assert qrels == b"q1 0 d0#0 1\n"
            assert manifest.qualification == "unknown"


@pytest.mark.parametrize("name", ["RUN", "MSMARCO", "MSMARCO_IDS", "TEVATRON"])
async def test_the_door_streams_what_a_file_would_hold(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path) as (stub, core):
        await ingest(stub, [judged_set("q1"), judged_set("q2")])
        kind = pb.ExportFormat.Value(f"EXPORT_FORMAT_{name}")
        data, manifest = await exported(stub, kind, system="bm25", unmeasured=True)
        written = name.lower().replace("_", "-")
        expected = export_file(
            core.ledger, "docs", written, tmp_path / "f", rules=core.settings.rules, options=Options(system="bm25"),
            unmeasured=True,
        )  # fmt: skip
        assert data == (tmp_path / "f").read_bytes() != b""
        assert json.loads(manifest.manifest_json) == expected


async def test_an_export_through_the_door_may_be_narrowed_and_let_people_win(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, core):
        await ingest(stub, [judged_set("q1")])
        with core.ledger.writing("record overrides") as connection:
            add(connection, "docs", [NewOverride("q1", "d1#0", 2, "0-3", "ana")], core.ledger.now_us())
        assert (await exported(stub, pb.EXPORT_FORMAT_QRELS, where="grade>=2"))[0] == b"q1 0 d0#0 3\n"
        asked, _ = await exported(stub, pb.EXPORT_FORMAT_QRELS, where="grade>=2", overrides=True)
        assert asked == b"q1 0 d0#0 3\nq1 0 d1#0 2\n"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await exported(stub, pb.EXPORT_FORMAT_RUN)
        assert "--system" in str(caught.value.details())


def letter_of(number: int, **fields: Any) -> DeadLetter:
    payload, headers = wire.encode(samples.query(number))
    subject = "qrelay.v1.docs.queries"
    whole = dead_letter(
        f"l{number}", f"q{number}", stage="retriever", payload=payload, headers=headers, subject=subject
    )
    return dataclasses.replace(whole, **fields)


IRREPLACEABLE = {
    "another subject": {"subject": "orders.new"},
    "an order to the server": {"subject": "$JS.API.STREAM.DELETE.QRELAY_V1_QUERIES"},
    "no token": {"subject": "qrelay.v1.my docs.queries"},
    "another stage's queue": {"stage": "judge"},
    "no original": {"payload": b""},
    "too large": {"payload": bytes(2 * 1024**2)},
}


@pytest.mark.parametrize("odd", IRREPLACEABLE.values(), ids=IRREPLACEABLE)
async def test_a_letter_that_cannot_be_replayed_is_named_and_the_others_are_replayed(
    tmp_path: Path, broker: Any, odd: dict[str, Any]
) -> None:
    async with serving(tmp_path, broker=broker) as (stub, core):
        core.ledger.record_dead_letters([letter_of(0), letter_of(1, **odd), letter_of(2)])
        for replayed in (2, 0):
            answer = await stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(all=True), timeout=LONG_S)
            assert (answer.replayed, list(answer.skipped_ids)) == (replayed, ["l1"])
        assert len(await broker.fetch(Queue.QUERIES, 10, 1)) == 2
        assert len(await broker.stats()) == len(Queue), "every stream is there"
        states = {e.letter.dead_letter_id: e.state for e in core.ledger.list_dead_letters(None, True, 10, "").entries}
    assert (states["l0"], states["l2"]) == ("replayed", "replayed")


async def test_a_letter_of_a_clock_that_is_ahead_is_replayed_with_the_others(tmp_path: Path, broker: Any) -> None:
    ahead = datetime.now(UTC) + timedelta(days=400)
    async with serving(tmp_path, broker=broker) as (stub, core):
        core.ledger.record_dead_letters([letter_of(0, failed_at=ahead), letter_of(1)])
        answer = await stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(all=True), timeout=LONG_S)
    assert (answer.replayed, list(answer.skipped_ids)) == (2, [])


@pytest.mark.parametrize(("told", "number"), [("", "1"), ("4", "5"), ("soon", "1"), ("-3", "1"), ("9" * 5000, "1")])
async def test_a_replay_is_numbered_after_the_last_one_where_that_was_a_number(
    tmp_path: Path, broker: Any, told: str, number: str
) -> None:
    headers = {REPLAY_HEADER: told, "Nats-Expected-Stream": "OTHER", "a b": "c", "Content-Encoding": ""}
    async with serving(tmp_path, broker=broker) as (stub, core):
        core.ledger.record_dead_letters([letter_of(0, headers=headers)])
        answer = await stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(dead_letter_ids=["l0"]), timeout=LONG_S)
        assert answer.replayed == 1
        (message,) = await broker.fetch(Queue.QUERIES, 1, 5)
    assert message.headers[REPLAY_HEADER] == number
    assert "Nats-Expected-Stream" not in message.headers


async def test_states_of_more_queries_than_a_call_may_ask_are_refused_and_the_client_asks_in_pages(
    tmp_path: Path,
) -> None:
    ids = [f"q{n}" for n in range(MAX_IDS + 1)]
    async with serving(tmp_path) as (stub, core):
        core.ledger.commit([judged_set(ids[-1])])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetQueryStates(pb.GetQueryStatesRequest(collection="docs", query_ids=ids), timeout=LONG_S)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert f"at most {MAX_IDS}" in str(caught.value.details())
        found = await states(Patience(Places(tmp_path, {"sink": stub.address})), "docs", ids, 0)
        assert found == ["pending"] * MAX_IDS + ["committed"]
        with core.ledger.writing("mark queries as forgotten") as connection:
            forgetting.mark(connection, "docs", ["q1"], core.ledger.now_us())
        assert await states(Patience(Places(tmp_path, {"sink": stub.address})), "docs", ["q1"], 0) == ["forgotten"]


async def test_who_waits_for_a_query_is_told_of_each_commit(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, core):
        asked = pb.GetQueryStatesRequest(collection="docs", query_ids=["q1"], wait_seconds=1e9)
        waiting = stub.GetQueryStates(asked, timeout=LONG_S)
        coming = core.news.coming
        await stub.Ingest(pb.IngestRequest(judged_sets=[wire.to_proto(judged_set("q1"))]), timeout=LONG_S)
        assert coming.is_set()
        for stage in (IngestStage(core), DeadLetterStage(core)):
            coming = core.news.coming
            assert await stage.handle([]) == []
            assert coming.is_set()
        assert len((await waiting).states) == 1
        assert (await stub.GetQueryStates(asked, timeout=LONG_S)).states == [pb.QUERY_STATE_COMMITTED]


async def test_states_of_millions_of_queries_are_refused_unread(tmp_path: Path) -> None:
    async with serving(tmp_path) as (stub, _):
        asked = pb.GetQueryStatesRequest(collection="docs", query_ids=["q"] * 3_000_000)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetQueryStates(asked, timeout=LONG_S)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_large_dead_letters_are_listed_and_replayed_by_the_command(tmp_path: Path) -> None:
    letters = [dead_letter(f"l{n}", f"q{n}", payload=os.urandom(900_000)) for n in range(100)]
    async with serving(tmp_path) as (stub, core):
        core.ledger.record_dead_letters(letters)
        runner = CliRunner()
        result = await asyncio.to_thread(runner.invoke, dlq, ["list", "--sink", stub.address, "--json"])
        assert result.exit_code == 0, result.output
        assert [each["dead_letter"]["dead_letter_id"] for each in json.loads(result.output)["dead_letters"]] == [
            letter.dead_letter_id for letter in letters
        ]
