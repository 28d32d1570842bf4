"""Swap under load: models are promoted while clients and queues never stop. No request fails, and every score of a
candidate set was computed by the one version that its trace names.

The models are tiny and real, with random weights: two versions give one (query, passage) clearly different scores,
and a query's vector of one version against a passage's of another gives a third, so a mixed set would be seen.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from qrelay import wire
from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.manifest import read_manifest
from qrelay.index.reembed_job import Job, run
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import Embedder, TextKind, load_embedder
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, Registry
from qrelay.runtime.client import OPTIONS
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.following import every
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.server import GrpcServer
from qrelay.services.reranker.scorers import CrossEncoderScorer
from qrelay.services.reranker.service import SERVICE as RERANKER
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.services.retriever.service import SERVICE as RETRIEVER
from qrelay.text import passage_text
from qrelay.types import DENSE, CandidateSet, Passage, Query, TraceStep
from qrelay.v1 import reranker_pb2, reranker_pb2_grpc, retriever_pb2, retriever_pb2_grpc
from tests import tiny
from tests.conftest import LONG_S, eventually
from tests.index.documents import WORDS, made_up, write_jsonl
from tests.pipeline.test_pipeline import four_stages

COLLECTION = "docs"
CLIENTS, BATCH, SWAPS, DOCUMENTS = 3, 2, 5, 60
PAUSE_S = 0.1
"""Of a client between two requests while another process re-embeds: that imports torch, at a low priority, and
thousands of requests without a pause would keep it from that."""
TEXTS = [" ".join(WORDS[(7 * n + 3 * k) % 300] for k in range(2 + n % 5)) for n in range(24)]
TOLERANCE = 2e-4


@dataclass(frozen=True)
class World:
    """An index by the configured model, a registry with two versions a slot, none promoted; `folders`: by version."""

    index: Path
    registry: Registry
    embedder: str
    folders: dict[str, Path]
    bi: list[str]
    cross: list[str]

    def promote(self, version: str) -> None:
        """Through the gate, against what serves."""
        slot = self.registry.manifest(version).slot
        against = self.registry.standing().serving(slot)
        if against != version:
            self.registry.record_gate(version, {"passed": True, "against": against})
            self.registry.promote(version)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("models")
    words = [*WORDS, *(f"title{n}" for n in range(7)), "how", "does", "thing", "work", *map(str, range(300))]
    return {
        "bi": [tiny.bi_encoder(folder / f"b{seed}", words, seed) for seed in range(3)],
        "cross": [tiny.cross_encoder(folder / f"c{seed}", words, seed) for seed in range(2)],
    }


@pytest.fixture
def world(tmp_path: Path, models: dict[str, list[Path]]) -> World:
    source = write_jsonl(tmp_path / "corpus.jsonl", made_up(DOCUMENTS, words=12))
    embedder, registry = f"path:{models['bi'][0]}", Registry(tmp_path / "registry")
    request = BuildRequest(str(source), COLLECTION, tmp_path / "index")
    build_index(request, load_embedder(embedder), print)
    folders = {}
    for slot, made in ((BI_ENCODER, models["bi"][1:]), (CROSS_ENCODER, models["cross"])):
        for model in made:
            folders[registry.publish(model, slot=slot, base="tiny@1")] = model
    bi, cross = ([v for v in folders if registry.manifest(v).slot == slot] for slot in (BI_ENCODER, CROSS_ENCODER))
    return World(tmp_path / "index", registry, embedder, folders, bi, cross)


class Truth:
    """What each version says of each pair, computed afterwards and alone."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._embedders: dict[str, Embedder] = {}
        self._scorers: dict[str, CrossEncoderScorer] = {}
        self._vectors: dict[tuple[str, str], Any] = {}

    def _folder(self, model: str) -> str:
        version, _, revision = model.partition("@")
        return f"path:{self._world.folders[version]}" if revision == "registry" else self._world.embedder

    def vector(self, model: str, text: str, kind: TextKind) -> Any:
        if model not in self._embedders:
            self._embedders[model] = load_embedder(self._folder(model))
        if (model, text) not in self._vectors:
            self._vectors[model, text] = self._embedders[model].encode([text], kind)[0]
        return self._vectors[model, text]

    def dense(self, model: str, query: str, passage: Passage) -> float:
        """The bi-encoder's score."""
        text = passage_text(passage.title, passage.text)
        return float(self.vector(model, query, "query") @ self.vector(model, text, "document"))

    def cross(self, model: str, found: CandidateSet) -> list[float]:
        """The cross-encoder's scores of the set's candidates."""
        if model not in self._scorers:
            self._scorers[model] = CrossEncoderScorer(self._folder(model), max_length=64, batch_pairs=32)
        return self._scorers[model].score([found])[0]

    def tells_apart(self, versions: Sequence[str], passages: Iterable[Passage]) -> None:
        """The test could not fail if all versions, or mixtures of two, gave the same scores."""
        a, b = (f"{version}@registry" for version in versions)
        gaps = []
        for query, passage in zip(TEXTS, passages, strict=False):
            text = passage_text(passage.title, passage.text)
            mixed = float(self.vector(a, query, "query") @ self.vector(b, text, "document"))
            gaps.append(min(abs(self.dense(m, query, passage) - mixed) for m in (a, b)))
        assert sum(gap > 50 * TOLERANCE for gap in gaps) > len(gaps) / 2


def step(found: CandidateSet, stage: str) -> TraceStep:
    (own,) = [each for each in found.trace if each.stage == stage]
    return own


def check_retrieved(found: CandidateSet, truth: Truth, world: World) -> str:
    """Every dense score is of the version that the trace and the index's manifest name; answers it."""
    model = step(found, "retriever").model
    assert read_manifest(world.index / COLLECTION / found.index_version).embedder == model
    for candidate in found.candidates:
        dense = candidate.score(DENSE)
        assert dense is not None and dense.score is not None
        assert abs(dense.score - truth.dense(model, found.query.text, candidate.passage)) < TOLERANCE
    return model


def check_reranked(found: CandidateSet, truth: Truth, texts: dict[str, Passage]) -> str:
    """Every cross-encoder score is of the version that the trace names; answers it."""
    model = step(found, "reranker").model
    read = CandidateSet(
        found.query, tuple(c.__class__(texts[c.passage.passage_id], ()) for c in found.candidates), ""
    )
    for candidate, expected in zip(found.candidates, truth.cross(model, read), strict=True):
        score = candidate.score("cross_encoder")
        assert score is not None and score.score is not None and abs(score.score - expected) < TOLERANCE
    return model


@asynccontextmanager
async def serving(definition: Any, settings: Any) -> AsyncIterator[tuple[str, Any]]:
    """The service behind a real gRPC server, with what runs beside it."""
    context: ServiceContext[Any, Any] = ServiceContext(definition.name, settings, "r1")
    server, stopping = GrpcServer(settings.grpc, definition.grpc_name), asyncio.Event()
    definition.add_servicer(server.raw, context)
    address = await server.start()
    context.core = await asyncio.to_thread(definition.load, settings)
    await server.ready(True)
    beside = asyncio.create_task(definition.background(context, stopping))
    try:
        yield address, context.core
    finally:
        stopping.set()
        await beside
        await server.drain(5)
        definition.close(context.core)


@dataclass
class Load:
    """Clients in closed loops until `stop`; what they were answered. `core`: the retriever that they ask."""

    retrieved: list[CandidateSet]
    reranked: list[CandidateSet]
    errors: list[str]
    stop: asyncio.Event
    core: Any

    async def client(self, retriever: Any, reranker: Any, number: int) -> None:
        turn = number
        while not self.stop.is_set():
            turn += 1
            queries = [
                Query(f"{number}-{turn}-{n}", TEXTS[(turn + n) % len(TEXTS)], COLLECTION) for n in range(BATCH)
            ]
            try:
                asked = retriever_pb2.RetrieveRequest(queries=[wire.to_proto(query) for query in queries])
                found = (await retriever.Retrieve(asked, timeout=LONG_S)).results
                self.errors += [each.error.message for each in found if each.HasField("error")]
                sets = [each.candidate_set for each in found]
                self.retrieved += [wire.from_proto(each) for each in sets]
                ranked = await reranker.Rerank(reranker_pb2.RerankRequest(candidate_sets=sets), timeout=LONG_S)
                self.errors += [each.error.message for each in ranked.results if each.HasField("error")]
                self.reranked += [wire.from_proto(each.candidate_set) for each in ranked.results]
            except grpc.aio.AioRpcError as error:
                self.errors.append(f"{error.code()}: {error.details()}")
            if self.core._follower._builder.pid is not None:
                await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def loaded(retriever: str, reranker: str, core: Any) -> AsyncIterator[Load]:
    load = Load([], [], [], asyncio.Event(), core)
    async with (
        grpc.aio.insecure_channel(retriever, options=OPTIONS) as one,
        grpc.aio.insecure_channel(reranker, options=OPTIONS) as two,
    ):
        stubs = retriever_pb2_grpc.RetrieverServiceStub(one), reranker_pb2_grpc.RerankerServiceStub(two)
        clients = [asyncio.create_task(load.client(*stubs, number)) for number in range(CLIENTS)]
        try:
            yield load
        finally:
            load.stop.set()
            await asyncio.gather(*clients)


async def test_no_request_fails_and_no_set_is_mixed_while_versions_change_under_load(world: World) -> None:
    """The first promotion of each version re-embeds in a process beside the service; the later ones switch."""
    retriever_settings = RetrieverSettings(
        index_dir=world.index, embedder=world.embedder, registry=world.registry.folder, registry_poll_s=0.05
    )
    reranker_settings = RerankerSettings(registry=world.registry.folder, registry_poll_s=0.05, max_candidates=20)
    async with (
        serving(RETRIEVER, retriever_settings) as (first, retriever),
        serving(RERANKER, reranker_settings) as (second, reranker),
        loaded(first, second, retriever) as load,
    ):
        for turn in range(SWAPS):
            bi, cross = world.bi[turn % 2], world.cross[turn % 2]
            await asyncio.to_thread(world.promote, bi)
            await asyncio.to_thread(world.promote, cross)
            for core, version in ((retriever, bi), (reranker, cross)):
                await eventually(lambda c=core, v=version: f"{v}@registry" in c.info().models.values())
            seen = len(load.reranked)
            await eventually(lambda seen=seen: len(load.reranked) >= seen + CLIENTS * BATCH)
    assert load.errors == []
    truth, texts = Truth(world), {c.passage.passage_id: c.passage for s in load.retrieved for c in s.candidates}
    await asyncio.to_thread(truth.tells_apart, world.bi, texts.values())
    retrieved = Counter([check_retrieved(found, truth, world) for found in load.retrieved[::2]])
    by_version = [found for found in load.reranked if step(found, "reranker").model.endswith("@registry")]
    reranked = Counter([check_reranked(found, truth, texts) for found in by_version[::2]])
    assert {f"{version}@registry" for version in world.bi} < set(retrieved), "both, and the configured one before"
    assert set(reranked) == {f"{version}@registry" for version in world.cross}
    assert all(step(found, "retriever").replica == "r1" for found in load.reranked)


async def lines(first: int, count: int) -> AsyncIterator[str]:
    for number in range(first, first + count):
        yield f"q{number}\t{TEXTS[number % len(TEXTS)]} thing {number}"


async def test_messages_in_flight_across_swaps_are_all_committed_each_by_one_version(
    world: World, nats_settings: Any, tmp_path: Path
) -> None:
    count, each_time = 120, 20
    for version in world.bi:  # both have their vectors, so that a swap takes no longer than loading a model
        world.promote(version)
        await asyncio.to_thread(run, Job(world.index, (), "registry", world.registry.folder))
    world.promote(world.cross[0])
    broker = await JetStreamBroker.connect(nats_settings, name="test", owner=True)
    environ = {
        "QRELAY_ALL__REGISTRY": str(world.registry.folder),
        "QRELAY_RETRIEVER__ENGINE": "embedded",
        "QRELAY_RETRIEVER__INDEX_DIR": str(world.index),
        "QRELAY_RETRIEVER__EMBEDDER": world.embedder,
        "QRELAY_RERANKER__SCORER": "auto",
        "QRELAY_RERANKER__MAX_CANDIDATES": "20",
    }
    async with four_stages(broker, tmp_path, **environ) as cores:
        ledger, stopping = cores["sink"].ledger, asyncio.Event()
        looking = [asyncio.create_task(every(0.02, cores[n].look, stopping)) for n in ("retriever", "reranker")]
        for first in range(0, count, each_time):
            with Journal(tmp_path / "feed") as journal:
                await Feeder(broker, journal, collection=COLLECTION).feed(lines(first, each_time))
            for slot, versions in (("retriever", world.bi), ("reranker", world.cross)):  # while they are in flight
                version = versions[first // each_time % 2]
                await asyncio.to_thread(world.promote, version)
                await eventually(lambda s=slot, v=version: f"{v}@" in str(cores[s].info().models))
        await eventually(lambda: len(ledger.query_states(COLLECTION)) == count)
        stopping.set()
        await asyncio.gather(*looking)
        assert set(ledger.query_states(COLLECTION).values()) == {"committed"}
        (stats,) = ledger.stats(COLLECTION)
        with ledger.snapshot() as snapshot:
            found = [snapshot.judged_set(COLLECTION, f"q{n}").candidate_set for n in range(count)]
    await broker.close()
    assert (stats.queries, stats.open_dead_letters) == (count, 0)
    passages = all_passages(world)
    truth, seen = Truth(world), Counter[tuple[str, str]]()
    for each in found:
        whole = CandidateSet(
            each.query, tuple(c.__class__(passages[c.passage.passage_id], c.scores) for c in each.candidates),
            each.index_version, each.trace,
        )  # fmt: skip
        seen["bi", check_retrieved(whole, truth, world)] += 1
        seen["cross", check_reranked(whole, truth, passages)] += 1
        assert [one.stage for one in each.trace] == ["retriever", "reranker", "judge"]
    assert set(seen) == {("bi", f"{v}@registry") for v in world.bi} | {
        ("cross", f"{v}@registry") for v in world.cross
    }


def all_passages(world: World) -> dict[str, Passage]:
    import numpy as np

    from qrelay.index.manifest import current_folder
    from qrelay.index.store import PassageStore

    store = PassageStore(current_folder(world.index / COLLECTION))
    return {passage.passage_id: passage for passage in store.passages(np.arange(len(store)))}
