"""MedQuAD's questions with a reference answer that no candidate passage repeats.

In MedQuAD the answer of a question is a document of the corpus. Its likelihood given that document would only say
that the document repeats it: the answer key by another way. So one answer of a question that two sources answer is
its reference, and is no candidate; what is labelled are other passages, among them the other source's answer, which
says the same in other words. A passage that copies from the reference (eight words in a row) is left out too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.relabel.plant import MedQuad
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.identity import digest
from qrelay.index.bm25 import Bm25
from qrelay.judging.strategies.answer_nll import cut_at_sentence
from qrelay.text import passage_text

WORDS: Final = 80
"""Of a passage: the beginning of its document."""
REFERENCE_WORDS: Final = 40
COPIED: Final = 8
CANDIDATES: Final = 5
FOUND: Final = 30
"""Documents of BM25's among which candidates are looked for."""
SEED: Final = 23
_ASKED: Final = re.compile(r"[^.!?]{1,200}\?\s+")


def medquad(data: MedQuad) -> list[GradedPair]:
    """The questions that two sources answer, in a random order, each with BM25's first passages, of which at least
    one is relevant (grade 1) and one is not (0)."""
    drawn = sorted(query_id for query_id, answers in data.gold.items() if len(_sources(data, answers)) > 1)
    random.Random(SEED).shuffle(drawn)
    ids = list(data.documents)
    index = Bm25.of([passage_text(row["title"], row["text"]) for row in data.documents.values()])
    found: list[GradedPair] = []
    for query_id in drawn:
        best = [ids[row] for row, _ in index.best(data.queries[query_id], FOUND)]
        rows = list(candidates(data, query_id, best))[:CANDIDATES]
        found += rows if len({row.grade for row in rows}) == 2 else []
    return found


def candidates(data: MedQuad, query_id: str, doc_ids: Sequence[str]) -> Iterator[GradedPair]:
    """The documents, best first, without the reference and what copies it."""
    first, *others = data.gold[query_id]
    reference = reference_of(data.documents[first]["text"])
    for doc_id in doc_ids:
        row = data.documents[doc_id]
        text = beginning(row["text"])
        if doc_id != first and not copies(text, reference):
            asked, grade = data.queries[query_id], int(doc_id in others)
            yield GradedPair(query_id, doc_id, grade, asked, row["title"], text, (reference,))


def reference_of(text: str) -> str:
    """An answer's first sentences, without the question that some sources repeat before it."""
    asked = _ASKED.match(text)
    return cut_at_sentence(text[asked.end() :] if asked else text, REFERENCE_WORDS)


def in_parts(pairs: Sequence[GradedPair], parts: int) -> list[list[GradedPair]]:
    """The pairs cut into parts that each hold a share of every question's: a run that was ended has seen them all."""
    found: list[list[GradedPair]] = [[] for _ in range(parts)]
    seen: dict[str, int] = {}
    for pair in sorted(pairs, key=lambda each: digest(each.query_id, each.passage_id)):
        place = seen[pair.query_id] = seen.get(pair.query_id, -1) + 1
        found[place % parts].append(pair)
    return found


def beginning(text: str) -> str:
    """What is judged, embedded and read of a document."""
    return " ".join(text.split()[:WORDS])


def copies(text: str, reference: str, run: int = COPIED) -> bool:
    """Whether the text has `run` words in a row from the reference."""
    return bool(_runs(text, run) & _runs(reference, run))


def _runs(text: str, length: int) -> set[tuple[str, ...]]:
    """All sequences of so many words, without case and punctuation."""
    words = [word for each in text.lower().split() if (word := "".join(filter(str.isalnum, each)))]
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}


def _sources(data: MedQuad, doc_ids: Sequence[str]) -> set[str]:
    return {data.documents[each]["metadata"]["source"] for each in doc_ids}
