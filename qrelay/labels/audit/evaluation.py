"""Evaluation sets that training data must not hold: queries, passages and qrels, read as everywhere
(`qrelay.formats.beir`); a folder stands for the queries.jsonl or corpus.jsonl in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qrelay.errors import InputError
from qrelay.formats.beir import qrel_rows
from qrelay.formats.lines import file_in
from qrelay.formats.records import document_fields, query_fields, read_records


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Files of one evaluation set; those that are None are not looked for. With `qrels`, only its queries and the
    passages that it calls relevant (score above 0) count."""

    queries: Path | None = None
    corpus: Path | None = None
    qrels: Path | None = None

    def read_queries(self) -> Iterator[tuple[str, str]]:
        """(id, text) of each query.

        Raises:
            MalformedInput: a file cannot be read or does not parse; names the line.
            InputError: nothing in it counts.
        """
        wanted = {query_id for _, (query_id, _, _) in qrel_rows(self.qrels, float)} if self.qrels else None
        return _of(self.queries, "queries.jsonl", wanted, query_fields)

    def read_passages(self) -> Iterator[tuple[str, str]]:
        """(id, text) of each passage, without titles. Raises: as `read_queries`."""
        rows = qrel_rows(self.qrels, float) if self.qrels else None
        wanted = {passage_id for _, (_, passage_id, score) in rows if score > 0} if rows else None
        return _of(self.corpus, "corpus.jsonl", wanted, document_fields)


def _of(
    path: Path | None, name: str, wanted: set[str] | None, fields: Callable[[object], tuple[str, ...]]
) -> Iterator[tuple[str, str]]:
    """(id, text) of the wanted records: the first and the last of their `fields`."""
    if path is None:
        return
    file, found = file_in(path, name), 0
    for _, (identifier, *_, text) in read_records(file, fields):
        if wanted is None or identifier in wanted:
            found += 1
            yield identifier, text
    if not found:
        narrowed = " that the qrels name" if wanted is not None else ""
        raise InputError(f"{file} holds nothing{narrowed}: give the files of one evaluation set")
