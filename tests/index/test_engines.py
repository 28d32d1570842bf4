"""The contract of every engine: the same claims of each, over the same made-up corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import QrelayError
from qrelay.index.ann import AnnRequest
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.embedded import EmbeddedEngine
from qrelay.index.engine import Engine
from qrelay.index.kinds import AnyKind, Form
from qrelay.index.milvus.load import load_current
from qrelay.index.milvus.versions import MilvusVersions
from qrelay.index.ranking import Depths
from qrelay.index.settings import RetrieverSettings
from qrelay.index.store import PassageStore
from qrelay.index.stored import StoredVectors
from qrelay.models.embedder import load_embedder
from qrelay.types import BM25, DENSE, Candidate
from tests.index.documents import made_up, write_jsonl
from tests.index.milvus.lite import lite_server
from tests.index.searching import answering
from tests.index.searching import engine as searching
from tests.llm.endpoint import ScriptedEndpoint

DEPTHS = Depths(bm25=40, dense=30, rrf_k=60)
RECALL = 0.9
LIMIT = 50
QUESTIONS = [f"word{number} word{number * 7 % 300} title{number % 7}" for number in range(24)]


@dataclass
class Case:
    """An engine that is open, what it finds by, and the exact answer for the systems that have one."""

    engine: Engine
    systems: tuple[str, ...]
    nearest: Callable[[str], set[str]] | None = None
    close: Callable[[], None] = field(default=lambda: None)

    def ask(self, texts: list[str], limit: int = LIMIT) -> list[tuple[Candidate, ...]]:
        vectors = load_embedder("hash").encode(texts, "query") if self.engine.embedder else None
        answers = self.engine.search(texts, vectors, limit)
        assert not [each for each in answers if isinstance(each, QrelayError)]
        return [each for each in answers if not isinstance(each, QrelayError)]


Make = Callable[[Path], Case]


def embedded(ann: AnyKind, vectors: Form = "float32") -> Make:
    def make(folder: Path) -> Case:
        source = write_jsonl(folder / "corpus.jsonl", made_up(400))
        wanted = AnnRequest(ann, RECALL)
        request = BuildRequest(str(source), "c", folder / "index", window=40, stride=20, vectors=vectors, ann=wanted)
        built = build_index(request, load_embedder("hash"), print)
        store, stored = PassageStore(built.folder), StoredVectors.open(built.folder)

        def nearest(text: str) -> set[str]:
            scores = np.round(stored.similarities(load_embedder("hash").encode([text], "query"))[0], 5)
            cut = np.sort(scores)[-DEPTHS.dense]
            return {passage.passage_id for passage in store.passages(np.flatnonzero(scores >= cut))}

        return Case(EmbeddedEngine(built.folder, DEPTHS), (BM25, DENSE), nearest)

    return make


def http(folder: Path) -> Case:
    opened = ExitStack()
    endpoint = opened.enter_context(ScriptedEndpoint())
    endpoint.default = answering(made_up(400))
    return Case(opened.enter_context(searching(endpoint, page_size=60)), ("opensearch",), close=opened.close)


def milvus(folder: Path) -> Case:
    exact = embedded("exact")(folder)
    held = ExitStack()
    own = held.enter_context(lite_server(folder / "milvus")).model_copy(update={"index": "HNSW"})
    load_current(folder / "index" / "c", own)
    settings = RetrieverSettings(milvus=own, bm25_top_k=DEPTHS.bm25, dense_top_k=DEPTHS.dense)
    return Case(MilvusVersions(settings).open("c"), (BM25, DENSE), exact.nearest, held.close)


WITH_VECTORS: dict[str, Make] = {
    "exact": embedded("exact"),
    "exact, float16": embedded("exact", "float16"),
    "exact, int8": embedded("exact", "int8"),
    "hnsw": embedded("hnsw"),
    "ivf-sq": embedded("ivf-sq"),
    "ivf-pq": embedded("ivf-pq", "int8"),
    "milvus": milvus,
}
ENGINES = WITH_VECTORS | {"http": http}


def named(name: str) -> str:
    return name.replace(", ", "-")


@pytest.fixture(scope="module", params=ENGINES, ids=named)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    made = ENGINES[request.param](tmp_path_factory.mktemp("engine"))
    yield made
    made.close()


def test_each_text_is_answered_in_order_within_the_limit(case: Case) -> None:
    answers = case.ask(QUESTIONS, 10)
    assert [len(each) for each in answers] == [10] * len(QUESTIONS)
    assert answers == [case.ask([text], 10)[0] for text in QUESTIONS]


def test_every_candidate_has_a_score_of_every_system_and_ranks_count_from_one(case: Case) -> None:
    for found in case.ask(QUESTIONS, 1000):
        for system in case.systems:
            scores = {each.passage.passage_id: each.score(system) for each in found}
            assert None not in scores.values()
            ranked = sorted((score.rank, -(score.score or 0.0)) for score in scores.values() if score and score.rank)
            assert [rank for rank, _ in ranked] == list(range(1, len(ranked) + 1))
            assert [worse for _, worse in ranked] == sorted(worse for _, worse in ranked)


def test_passages_are_whole_and_none_comes_twice(case: Case) -> None:
    texts = {f"{row['_id']}": row for row in made_up(400)}
    for found in case.ask(QUESTIONS):
        assert len({each.passage.passage_id for each in found}) == len(found)
        for passage in (each.passage for each in found):
            assert passage.text in texts[passage.doc_id]["text"]
            assert passage.title == texts[passage.doc_id]["title"]


def test_words_of_no_passage_find_by_vectors_alone(case: Case) -> None:
    (found,) = case.ask(["xyzzy plugh"])
    if BM25 in case.systems:
        assert [each for each in found if (score := each.score(BM25)) and score.rank] == []


@pytest.mark.parametrize("case", WITH_VECTORS, ids=named, indirect=True)
def test_the_nearest_passages_are_found_within_the_stated_recall(case: Case) -> None:
    assert case.nearest is not None
    shares = []
    for text, found in zip(QUESTIONS, case.ask(QUESTIONS, 1000), strict=True):
        ranked = {each.passage.passage_id for each in found if (score := each.score(DENSE)) and score.rank}
        shares.append(len(ranked & case.nearest(text)) / DEPTHS.dense)
    assert np.mean(shares) >= RECALL


def place(candidate: Candidate) -> tuple[str, int]:
    return candidate.passage.doc_id, int(candidate.passage.passage_id.partition("#")[2])


def test_equal_scores_are_ordered_by_document_and_number(case: Case) -> None:
    for found in case.ask(QUESTIONS, 1000):
        for system in case.systems:
            ranked = sorted(
                (
                    score.rank,
                    score.score or 0.0,
                    (each.passage.doc_id, int(each.passage.passage_id.partition("#")[2])),
                )
                for each in found
                if (score := each.score(system)) and score.rank
            )
            for (_, one, first), (_, other, second) in pairwise(ranked):
                assert one > other or first < second


def test_threads_get_the_answers_that_one_gets(case: Case) -> None:
    alone = [case.ask([text])[0] for text in QUESTIONS]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda text: case.ask([text])[0], QUESTIONS)) == alone


def test_it_says_what_it_is(case: Case) -> None:
    facts = case.engine.describe()
    assert facts["version"] == case.engine.version
    assert case.engine.name
