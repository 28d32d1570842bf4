"""Each service as a target: what is counted is what happened. Really started services with doubles for models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay import wire
from qrelay.bench.data import Generated
from qrelay.bench.load import Answer
from qrelay.bench.probe import Process, Scraper, parse, scrape
from qrelay.bench.running import Fleet, Plan, simulated
from qrelay.bench.targets.recorded import KINDS, Recorded, query_message, read_queries, read_sets, write_records
from qrelay.bench.targets.services import ENDPOINTS, ServiceTarget
from qrelay.errors import BackendUnavailable, ConfigError, InputError, MalformedInput, SetupError
from qrelay.runtime.client import channel
from qrelay.v1 import sink_pb2, sink_pb2_grpc

SERVICES = tuple(ENDPOINTS)
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """One process of each service, with doubles that take no time, and a judge that holds two sets at most."""
    plan = Plan(environ={**simulated({"retriever": 0.0, "reranker": 0.0, "judge": 0.0}), "OMP_NUM_THREADS": "1"})
    with Fleet(plan) as started:
        slow = {"QRELAY_JUDGE__GRPC__MAX_PENDING_ITEMS": "2", "QRELAY_JUDGE__FAKE__SERVICE_TIME_S": "0.1"}
        names = [started.launch(service) for service in SERVICES] + [started.launch("judge", slow)]
        started.wait_ready(names)
        yield started


def address(fleet: Fleet, name: str) -> str:
    endpoint = fleet.endpoint(name)
    assert endpoint
    return endpoint.grpc


def target(fleet: Fleet, service: str, items: int = 1, **source: Any) -> ServiceTarget:
    made = Generated(ENDPOINTS[service].kind, **source)
    return ServiceTarget(service, address(fleet, service), made, items)


def committed(sink: str, collection: str) -> int:
    with channel(sink) as opened:
        request = sink_pb2.GetStatsRequest(collection=collection)
        return sum(row.queries for row in sink_pb2_grpc.SinkServiceStub(opened).GetStats(request).collections)


@pytest.mark.parametrize("service", SERVICES)
async def test_every_item_that_was_sent_is_answered_once(service: str, fleet: Fleet) -> None:
    async with target(fleet, service, items=3, tag="once") as sending:
        assert (await sending.info())["version"]
        answers = await asyncio.gather(*(sending.send(number) for number in range(4)))
    assert answers == [Answer(3)] * 4


@pytest.mark.parametrize("service", SERVICES)
async def test_the_probe_reads_batches_cpu_and_memory(service: str, fleet: Fleet) -> None:
    probe = Scraper(fleet.processes)
    before = probe.read()[service]
    async with target(fleet, service, items=2, tag="probed") as sending:
        for number in range(5):  # one after another: calls at once would share batches
            await sending.send(number)
    after = probe.read()[service]
    name = "qrelay_grpc_batch_items"
    grown = after.histograms[name].since(before.histograms.get(name))
    assert (grown.count, grown.sum) == (5, 10)
    assert after.cpu_seconds >= before.cpu_seconds > 0
    assert after.peak_rss_mib >= after.rss_mib > 10


async def test_a_service_elsewhere_is_read_by_its_metrics_alone(fleet: Fleet) -> None:
    metrics = fleet.processes()["reranker"].metrics
    sample = Scraper(lambda: {"reranker": Process(metrics=metrics), "gone": Process(metrics=NOBODY)}).read()
    assert sample["reranker"].cpu_seconds > 0
    assert sample["reranker"].peak_rss_mib == sample["reranker"].rss_mib > 10
    assert "gone" not in sample
    with pytest.raises(BackendUnavailable, match="--metrics"):
        scrape(NOBODY)


def test_work_on_dead_letters_is_not_mixed_with_what_is_measured() -> None:
    text = (
        "# TYPE qrelay_batch_items histogram\n"
        'qrelay_batch_items_bucket{stage="sink",le="1.0"} 2\n'
        'qrelay_batch_items_bucket{stage="sink",le="+Inf"} 3\n'
        'qrelay_batch_items_sum{stage="sink"} 4\n'
        'qrelay_batch_items_bucket{stage="sink-dead-letters",le="1.0"} 9\n'
        'qrelay_batch_items_sum{stage="sink-dead-letters"} 9\n'
    )
    found = parse(text).histograms["qrelay_batch_items"]
    assert (found.bounds, found.counts, found.sum) == ((1.0,), (2.0, 1.0), 4.0)


async def test_what_is_refused_for_load_is_no_failure(fleet: Fleet) -> None:
    made = Generated("reranked", tag="refused")
    async with ServiceTarget("judge", address(fleet, "judge-2"), made) as sending:
        answers = await asyncio.gather(*(sending.send(number) for number in range(12)))
    assert sum(answer.ok + answer.refused for answer in answers) == 12
    assert sum(answer.refused for answer in answers) > 0
    assert not any(answer.failed for answer in answers)
    assert "max_pending_items" in sending.errors["overloaded"]


async def test_nobody_at_the_address_is_a_clear_error() -> None:
    async with ServiceTarget("judge", NOBODY, Generated("reranked")) as sending:
        with pytest.raises(BackendUnavailable, match="qrelay serve judge"):
            await sending.info()
        answer = await sending.send(0)
    assert (answer.ok, answer.failed) == (0, {"backend_unavailable": 1})


async def test_another_service_at_the_address_is_a_clear_error(fleet: Fleet) -> None:
    async with ServiceTarget("judge", address(fleet, "sink"), Generated("reranked")) as sending:
        with pytest.raises(InputError, match="no judge"):
            await sending.info()


async def test_the_ledger_holds_exactly_what_the_sink_answered(fleet: Fleet) -> None:
    async with target(fleet, "sink", items=4, tag="held", collection="held") as sending:
        answers = [await sending.send(number) for number in range(5)]
        assert sum(answer.ok for answer in answers) == committed(sending.address, "held") == 20
        again = await sending.send(0)
    assert again == Answer(0, {"duplicate": 4})
    assert committed(sending.address, "held") == 20


async def test_judgments_from_the_cache_are_told_apart(fleet: Fleet, tmp_path: Path) -> None:
    name = fleet.launch("judge", {"QRELAY_JUDGE__CACHE": str(tmp_path / "cache.sqlite")})
    found = fleet.wait_ready([name])[name]
    async with ServiceTarget("judge", found.grpc, Generated("reranked")) as sending:
        await sending.send(0)
        assert (sending.tally["judgments"], sending.tally["cached"]) == (25, 0)
        await sending.send(0)
    assert (sending.tally["judgments"], sending.tally["cached"]) == (50, 25)


@pytest.mark.parametrize("kind", ["query", *KINDS])
def test_made_items_repeat_by_seed_and_differ_by_number(kind: str) -> None:
    texts = {query_message(Generated(kind, 7).item(number)).text for number in range(50)}
    assert len(texts) == 50
    one, other = (query_message(Generated(kind, seed).item(3)).text for seed in (7, 8))
    assert query_message(Generated(kind, 7).item(3)).text == one != other


def test_made_sets_have_the_services_sizes() -> None:
    retrieved, reranked, judged = (Generated(kind).item(5) for kind in KINDS)
    assert [len(each.candidates) for each in (retrieved, reranked)] == [100, 40]
    assert sum(each.sampled for each in reranked.candidates) == len(judged.judgments) == 25
    assert all(len(each.passage.text.split()) == 160 for each in retrieved.candidates)
    assert len({each.passage.text for each in retrieved.candidates}) == 100


def test_recorded_sets_come_back_by_kind_and_repeat_under_new_ids(tmp_path: Path) -> None:
    records = [wire.from_proto(Generated(kind).item(n)) for n in range(3) for kind in KINDS]
    assert write_records(tmp_path / "sets", records) == 9
    by_kind = {kind: [wire.to_proto(each) for each in records[i::3]] for i, kind in enumerate(KINDS)}
    assert {kind: read_sets(tmp_path / "sets", kind) for kind in KINDS} == by_kind
    source = Recorded("judged", read_sets(tmp_path / "sets", "judged"), tag="run")
    ids = [query_message(source.item(number)).query_id for number in range(6)]
    assert len(set(ids)) == 6
    assert [each.split("~")[0] for each in ids] == [query_message(each).query_id for each in by_kind["judged"]] * 2
    assert source.describe()["distinct"] == 3


async def test_recorded_sets_are_committed_in_every_lap(fleet: Fleet, tmp_path: Path) -> None:
    made = Generated("judged", collection="laps")
    write_records(tmp_path / "sets", [wire.from_proto(made.item(number)) for number in range(2)])
    source = Recorded("judged", read_sets(tmp_path / "sets", "judged"), tag="x")
    async with ServiceTarget("sink", address(fleet, "sink"), source) as sending:
        answers = [await sending.send(number) for number in range(5)]
    assert sum(answer.ok for answer in answers) == committed(sending.address, "laps") == 5


def test_files_that_hold_something_else_are_refused_with_what_to_do(tmp_path: Path) -> None:
    damaged, empty = tmp_path / "damaged", tmp_path / "empty"
    write_records(damaged, [wire.from_proto(Generated("judged").item(n)) for n in range(3)])
    damaged.write_bytes(damaged.read_bytes()[:-400])
    empty.write_text("\n\n")
    with pytest.raises(MalformedInput, match="cut short"):
        read_sets(damaged, "judged")
    with pytest.raises(MalformedInput, match="qrelay bench record"):
        read_sets(empty, "judged")
    with pytest.raises(MalformedInput, match="no query"):
        read_queries(empty, "docs")
    write_records(damaged, [wire.from_proto(Generated("judged").item(0))])
    with pytest.raises(MalformedInput, match=r"no reranked sets .*1 judged"):
        read_sets(damaged, "reranked")


def test_a_service_that_cannot_start_says_why() -> None:
    with Fleet(Plan(environ={"QRELAY_RETRIEVER__ENGINE": "nonsense"})) as broken:
        with pytest.raises(SetupError, match=r"(?s)retriever\.engine.*--data-dir"):
            broken.start(["retriever"])


def test_only_services_with_a_model_have_a_double() -> None:
    with pytest.raises(ConfigError, match="retriever, reranker, judge"):
        simulated({"sink": 0.1})
