"""Queries with reference answers, over a corpus: what retrieval-augmented answers are measured on."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from qrelay.errors import InputError
from qrelay.formats.beir import Collection, read_answers, read_documents, read_queries
from qrelay.formats.lines import file_in
from qrelay.formats.records import asked_answers, read_records


@dataclass(frozen=True)
class Questions:
    """collection: corpus and queries, without qrels. references: query_id -> the answers that are right, at least
    one. unanswered: queries of the file without a reference answer, which are left out."""

    collection: Collection
    references: dict[str, tuple[str, ...]]
    unanswered: int


def read_questions(
    corpus: Path, queries: Path, answers: Path | None = None, *, sample: int | None = None, seed: int = 0
) -> Questions:
    """Reference answers stand in the queries' `metadata.answer` or `metadata.answers`, or in `answers`: JSONL with
    `query_id` (or `_id`) and `answers` (or `answer`). sample: so many queries with an answer, drawn by `seed`.

    Raises:
        MalformedInput: a file that cannot be read or a line that is not what it must be.
        InputError: no query has an answer, or fewer than `sample`.
    """
    file = file_in(queries, "queries.jsonl")
    asked = dict(read_queries(file))
    told = read_answers(answers) if answers else dict(found for _, found in read_records(file, asked_answers))
    references = {query_id: told[query_id] for query_id in asked if told.get(query_id)}
    if not references:
        raise InputError(
            f"no query of {file} has a reference answer: give `metadata.answers` there, or --answers FILE"
        )
    if sample is not None and sample > len(references):
        raise InputError(f"--sample {sample}: only {len(references)} queries have a reference answer; draw fewer")
    kept = random.Random(seed).sample(sorted(references), sample) if sample else list(references)
    documents = read_documents(corpus)
    collection = Collection([d for d, _ in documents], [t for _, t in documents], {q: asked[q] for q in kept}, {})
    return Questions(collection, {query_id: references[query_id] for query_id in kept}, len(asked) - len(references))
