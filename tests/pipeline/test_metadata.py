"""Metadata from the corpus to the label, through every stage, and judged again from the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from qrelay.errors import QrelayError
from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.index.build import BuildRequest, build_index
from qrelay.judging.load import load_core
from qrelay.judging.rejudge import rejudge
from qrelay.judging.settings import JudgeSettings
from qrelay.labels.ledger.ledger import Ledger
from qrelay.models.embedder import load_embedder
from qrelay.runtime.memory import MemoryBroker
from qrelay.types import Graded, JudgedSet, Missing
from tests.conftest import eventually
from tests.index.documents import made_up, write_jsonl
from tests.judging.rubrics import rubric_file
from tests.pipeline.test_pipeline import four_stages

TEMPLATE = (
    "{query}\n<passage>\nSource: {metadata.source}\n{title}\n{text}\n</passage>\n"
    "The passage has ended. {query}\nGrade, {answers}:"
)


def corpus(folder: Path) -> Path:
    """60 documents; every third has no metadata."""
    rows = [
        {**row, **({"metadata": {"source": f"s{n % 4}", "url": f"https://example.org/{n}"}} if n % 3 else {})}
        for n, row in enumerate(made_up(60))
    ]
    return write_jsonl(folder / "corpus.jsonl", rows)


def has_source(doc_id: str) -> bool:
    return int(doc_id[1:]) % 3 != 0


async def questions() -> AsyncIterator[str]:
    yield "q0\tword1 word2 word3"


async def labelled(broker: MemoryBroker, folder: Path, **settings: str) -> JudgedSet:
    embedded = {"QRELAY_RETRIEVER__ENGINE": "embedded", "QRELAY_RETRIEVER__EMBEDDER": "hash"}
    async with four_stages(broker, folder, **embedded, **settings) as cores:
        with Journal(folder / "feed") as journal:
            await Feeder(broker, journal, collection="docs").feed(questions())
        ledger: Ledger = cores["sink"].ledger
        await eventually(lambda: len(ledger.query_states("docs")) == 1)
        with ledger.snapshot() as snapshot:
            found = snapshot.judged_set("docs", "q0")
    assert found is not None
    return found


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    build_index(BuildRequest(str(corpus(tmp_path)), "docs", tmp_path / "index"), load_embedder("hash"), print)
    return tmp_path


def outcomes(found: JudgedSet) -> dict[str, Graded | Missing]:
    return {each.passage_id: each.outcome for each in found.judgments if each.judge.strategy == "sourced"}


def check(found: JudgedSet) -> None:
    """A grade where the document has a source, and else none, with the reason."""
    passages = {each.passage.passage_id: each.passage for each in found.candidate_set.candidates}
    judged = outcomes(found)
    kinds = {has_source(passages[each].doc_id) for each in judged}
    assert len(judged) == 25 and kinds == {True, False}
    for name, outcome in judged.items():
        assert isinstance(outcome, Graded) == has_source(passages[name].doc_id), outcome
        if isinstance(outcome, Missing):
            assert outcome == Missing("filtered", "no metadata source, which the rubric shows; the passage has none")


async def test_a_rubric_reads_what_the_corpus_says_of_each_document(installation: Path) -> None:
    rubric = rubric_file(installation, name="sourced", template=TEMPLATE)
    broker = MemoryBroker()
    found = await labelled(broker, installation, QRELAY_JUDGE__RUBRIC=rubric)
    await broker.close()
    check(found)
    for each in found.candidate_set.candidates:
        number = int(each.passage.doc_id[1:])
        kept = {"source": f"s{number % 4}", "url": f"https://example.org/{number}"} if number % 3 else {}
        assert each.passage.metadata == (kept if each.sampled else {}), "what nobody judges travels without"


async def test_labels_of_another_judge_are_judged_again_by_what_the_ledger_keeps(installation: Path) -> None:
    broker = MemoryBroker()
    found = await labelled(broker, installation)
    await broker.close()
    settings = JudgeSettings(
        backend="fake", cache=":none:", rubric=rubric_file(installation, name="sourced", template=TEMPLATE)
    )
    sent: list[JudgedSet] = []

    async def send(sets: Sequence[JudgedSet]) -> list[int | QrelayError]:
        sent.extend(sets)
        return [len(each.judgments) for each in sets]

    done = await rejudge(load_core(settings), [found], send)
    assert done.added == 25
    check(sent[0])
