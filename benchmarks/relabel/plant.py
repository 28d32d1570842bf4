"""Training sets of MedQuAD with a known truth: the clean one, and the dirty one, in which known answers stand among
the negatives.

A question that two of MedQuAD's sources answer keeps one answer as its positive; the other source's is planted as the
last of its negatives. (Of several answers by one source the key takes some that only lead up to the answer.)
The other negatives are what BM25 finds for the question among answers about another focus. So that they are clean, a
focus that shares all its words with the question's (or the other way round) is left out, and so is an answer that
names the question's focus. A stratum of its own, `siblings`, takes answers to other kinds of questions about the same
focus: they are no answers of this question, but near it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bm25s

from qrelay.formats.beir import read_qrels
from qrelay.formats.lines import byte_lines, json_value
from qrelay.terms import tokenize

WORDS: Final = 100
"""Of an answer, its beginning: about as long as a passage."""
FOUND: Final = 200
"""Answers of BM25's among which negatives are looked for."""
SEED: Final = 17
_NOTHING: Final = frozenset(tokenize("and or of in the a an with to for type disease syndrome disorder what know"))
"""Terms of a focus that do not tell it from another."""


@dataclass(frozen=True, slots=True)
class MedQuad:
    """documents: id -> the row; queries: id -> text; gold: query -> its answers, in the key's order."""

    documents: Mapping[str, Mapping[str, Any]]
    queries: Mapping[str, str]
    gold: Mapping[str, Sequence[str]]

    def passage(self, doc_id: str) -> dict[str, str]:
        """A document's beginning, in Tevatron's fields."""
        row = self.documents[doc_id]
        return {"docid": doc_id, "title": row["title"], "text": " ".join(row["text"].split()[:WORDS])}


def read(data: Path, split: str) -> MedQuad:
    """The corpus, and one split's questions and answers."""
    gold = {
        query_id: [doc_id for doc_id, grade in grades.items() if grade > 0]
        for query_id, grades in read_qrels(data / "qrels" / f"{split}.tsv.gz").items()
    }
    documents = {row["_id"]: row for row in rows(data / "corpus.jsonl.gz")}
    queries = {row["_id"]: row["text"] for row in rows(data / f"queries.{split}.jsonl.gz")}
    return MedQuad(documents, queries, gold)


def rows(path: Path) -> Iterator[Any]:
    """The objects of a JSONL file, .gz or not."""
    return (json_value(line) for _, line in byte_lines(path))


def examples(data: MedQuad, count: int, negatives: int, siblings: int) -> Iterator[dict[str, Any]]:
    """`count` questions of several answers: query_id, query, positive, plant,
    negatives, siblings; each passage in Tevatron's fields."""
    drawn = sorted(query_id for query_id, answers in data.gold.items() if 2 <= len(answers) <= 6)
    random.Random(SEED).shuffle(drawn)
    ids = list(data.documents)
    index = bm25s.BM25()
    index.index([tokenize(f"{row['title']} {row['text']}") for row in data.documents.values()], show_progress=False)
    for query_id in drawn:
        query, keep = data.queries[query_id], data.gold[query_id][0]
        plant = next((each for each in data.gold[query_id] if _source(data, each) != _source(data, keep)), keep)
        if _same(data, keep, plant):
            continue
        found, _ = index.retrieve([tokenize(query)], k=FOUND, show_progress=False)
        ranked = [ids[number] for number in found[0]]
        clean = [each for each in ranked if _elsewhere(data, keep, each)][:negatives]
        if len(clean) == negatives:
            yield {
                "query_id": query_id,
                "query": query,
                "positive": data.passage(keep),
                "plant": data.passage(plant),
                "negatives": [data.passage(each) for each in clean],
                "siblings": [data.passage(each) for each in _siblings(data, query_id, ranked)[:siblings]],
            }
            if not (count := count - 1):
                return


def tevatron(example: Mapping[str, Any], *, planted: bool) -> dict[str, Any]:
    """The example as a line of a training set. Clean: the plant's place is taken by one more true negative, so that
    both sets have as many negatives."""
    *others, last = example["negatives"]
    return {
        "query_id": example["query_id"],
        "query": example["query"],
        "positive_passages": [example["positive"]],
        "negative_passages": [*others, example["plant"] if planted else last],
    }


def _siblings(data: MedQuad, query_id: str, ranked: Sequence[str]) -> list[str]:
    """Answers to other kinds of questions about the same focus; none of what tells of everything."""
    answers = [data.documents[each] for each in data.gold[query_id]]
    focus, kinds = _words(answers[0]["title"]), {each["metadata"]["qtype"] for each in answers}
    kinds |= {"information"}
    return [
        each
        for each in ranked
        if _words(data.documents[each]["title"]) == focus
        and data.documents[each]["metadata"]["qtype"] not in kinds
        and each not in data.gold[query_id]
    ]


def _source(data: MedQuad, doc_id: str) -> str:
    return str(data.documents[doc_id]["metadata"]["source"])


def _same(data: MedQuad, one: str, other: str) -> bool:
    """One answer, or the same text twice: a planted copy of the positive would prove nothing."""
    return data.passage(one)["text"] == data.passage(other)["text"]


def _elsewhere(data: MedQuad, answer: str, other: str) -> bool:
    """Whether `other` is about another focus, by its title and its text."""
    focus, theirs = _words(data.documents[answer]["title"]), _words(data.documents[other]["title"])
    if not focus or not theirs or focus <= theirs or theirs <= focus:
        return False
    name = data.documents[answer]["title"].lower()
    return name not in data.passage(other)["text"].lower()


def _words(focus: str) -> frozenset[str]:
    return frozenset(tokenize(focus)) - _NOTHING
