"""Queries with reference answers, over a corpus: what retrieval-augmented answers are measured on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qrelay.errors import InputError, MalformedInput
from qrelay.formats.beir import Collection, read_documents, read_queries
from qrelay.formats.lines import file_in, numbered_rows
from qrelay.formats.records import BadRecord, query_id


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
    known = dict(_from_answers(answers) if answers else _from_queries(file))
    references = {query_id: known[query_id] for query_id in asked if known.get(query_id)}
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


def _from_queries(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, row in numbered_rows(path):
        told = row.get("metadata") or {}
        if not isinstance(told, dict):
            raise MalformedInput(f"{path}:{number}: `metadata` is not an object")
        yield query_id(row), _texts(path, number, told)


def _from_answers(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    seen: set[str] = set()
    for number, row in numbered_rows(path):
        try:
            found = query_id(row)
        except BadRecord as error:
            raise MalformedInput(f"{path}:{number}: {error}") from error
        if found in seen:
            raise MalformedInput(f"{path}:{number}: {found} occurs twice: put its answers into one line")
        seen.add(found)
        yield found, _texts(path, number, row)


def _texts(path: Path, number: int, row: dict[str, Any]) -> tuple[str, ...]:
    told = row.get("answers", row.get("answer"))
    found = [] if told is None else [told] if isinstance(told, str) else told
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise MalformedInput(f"{path}:{number}: `answers` must be a list of texts, or `answer` a text")
    return tuple(each for each in found if each.strip())
