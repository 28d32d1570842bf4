"""Evaluation sets that training data must not hold: queries, passages and qrels as BEIR lays them out, plain or .gz.

queries, corpus: JSONL, one object a line, read as everywhere (`qrelay.formats.records`); a folder stands for the
queries.jsonl or corpus.jsonl in it. qrels: TSV under the header query-id, corpus-id, score, or TREC's four columns.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from qrelay.errors import InputError, MalformedInput
from qrelay.formats.records import BadRecord, document_fields, query_fields

_Fields = Callable[[object], tuple[str, str]]
"""(id, text) of a record."""
_HEADER: Final = ["query-id", "corpus-id", "score"]


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
        wanted = {query_id for query_id, _, _ in _qrels(self.qrels)} if self.qrels else None
        return _of(self.queries, "queries", wanted, query_fields)

    def read_passages(self) -> Iterator[tuple[str, str]]:
        """(id, text) of each passage, without titles. Raises: as `read_queries`."""
        wanted = {passage_id for _, passage_id, score in _qrels(self.qrels) if score > 0} if self.qrels else None
        return _of(self.corpus, "corpus", wanted, _passage)


def _of(path: Path | None, name: str, wanted: set[str] | None, fields: _Fields) -> Iterator[tuple[str, str]]:
    if path is None:
        return
    file, found = _file(path, name), 0
    for identifier, text in _records(file, fields):
        if wanted is None or identifier in wanted:
            found += 1
            yield identifier, text
    if not found:
        narrowed = " that the qrels name" if wanted is not None else ""
        raise InputError(f"{file} holds nothing{narrowed}: give the files of one evaluation set")


def _file(path: Path, name: str) -> Path:
    if not path.is_dir():
        return path
    found = [each for each in (path / f"{name}.jsonl", path / f"{name}.jsonl.gz") if each.exists()]
    if not found:
        raise MalformedInput(f"{path} holds no {name}.jsonl and no {name}.jsonl.gz: give a BEIR folder or the file")
    return found[0]


def _passage(record: object) -> tuple[str, str]:
    doc_id, _, text = document_fields(record)
    return doc_id, text


def _records(path: Path, fields: _Fields) -> Iterator[tuple[str, str]]:
    for number, line in _lines(path):
        try:
            yield fields(orjson.loads(line))
        except ValueError as error:
            raise MalformedInput(f"{path}:{number}: no JSON: {error}") from error
        except BadRecord as error:
            raise MalformedInput(f"{path}:{number}: not an object with _id and text ({error})") from error


def _qrels(path: Path) -> Iterator[tuple[str, str, float]]:
    for number, line in _lines(path):
        fields = line.split("\t") if "\t" in line else line.split()
        if number == 1 and fields[:3] == _HEADER:
            continue
        if len(fields) not in (3, 4):
            raise MalformedInput(f"{path}:{number}: {len(fields)} fields: a qrel has 3 (BEIR) or 4 (TREC)")
        try:
            yield fields[0], fields[-2], float(fields[-1])
        except ValueError as error:
            raise MalformedInput(f"{path}:{number}: {fields[-1][:40]!r} is no score") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines that are not blank."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MalformedInput(f"{path} cannot be read ({type(error).__name__}: {error}): give a UTF-8 file") from error
