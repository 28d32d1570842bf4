"""Qrels and runs of passages beside a corpus, qrels or runs of documents: a document has its best passage's grade and
score, as `qrelay export --by document` has it. Nothing is renamed that has a place where it stands.

    folded, count = fold_qrels(qrels, corpus_ids)      # 486#2 -> 486 where the corpus holds 486 and not 486#2
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from qrelay.errors import MalformedInput
from qrelay.naming import absent, document_of

Qrels = dict[str, dict[str, int]]
"""query_id -> document id -> grade."""
Run = dict[str, dict[str, float]]
"""query_id -> document id -> score; a higher one ranks earlier."""
_Value = TypeVar("_Value", int, float)


def fold_qrels(qrels: Qrels, known: Collection[str], where: str = "the qrels") -> tuple[Qrels, int]:
    """(the qrels with documents' ids for passages that `known` does not hold, how many passages that were).

    Raises:
        MalformedInput: a document and a passage of it are judged for one query, with different grades.
    """
    folded = {query_id: _folded(grades, known) for query_id, grades in qrels.items()}
    for query_id, grades in qrels.items():
        for doc_id, grade in folded[query_id].items():
            if grades.get(doc_id, grade) != grade:
                raise MalformedInput(
                    f"{where} grade the document {doc_id} for {query_id}, and higher a passage of it: keep one of the"
                    " two (`qrelay export qrels --by document` has one grade a document)"
                )
    return folded, _renamed(qrels, known)


def fold_run(run: Run, known: Collection[str]) -> tuple[Run, int]:
    """The same of a run; a document has the score of its best passage."""
    return {query_id: _folded(scores, known) for query_id, scores in run.items()}, _renamed(run, known)


def to_one_level(sources: Iterable[Mapping[str, Mapping[str, Any]]]) -> frozenset[str]:
    """The documents to which qrels and runs must be folded so that all are about the same: every document that any of
    them names, if one names a document of which another names a passage; else none."""
    ids = {each for source in sources for found in source.values() for each in found}
    documents = {document_of(each) for each in ids}
    mixed = any(document_of(each) != each and document_of(each) in ids for each in ids)
    return frozenset(documents) if mixed else frozenset()


def nothing_shared(run: Run, qrels: Qrels, run_name: str, qrels_name: str) -> str:
    """What to tell where a run ranks no document that is judged, whatever the query, or none at all for some of the
    queries; empty where it does."""
    judged = {doc_id: None for grades in qrels.values() for doc_id in grades}
    ranked = {doc_id: None for query_id in qrels for doc_id in run.get(query_id, {})}
    if not judged or not ranked or judged.keys() & ranked.keys():
        unranked = [query_id for query_id in qrels if not run.get(query_id)]
        some = f"{run_name} ranks nothing for {len(unranked)} of the {len(qrels)} queries of {qrels_name}"
        return f"{some} ({unranked[0]!r}, say)" if unranked else ""
    return f"{run_name} ranks nothing that is judged: {absent(next(iter(ranked)), judged, qrels_name)}"


def _folded(values: Mapping[str, _Value], known: Collection[str]) -> dict[str, _Value]:
    found: dict[str, _Value] = {}
    for identifier, value in values.items():
        name = _name(identifier, known)
        found[name] = max(value, found[name]) if name in found else value
    return found


def _renamed(values: Mapping[str, Mapping[str, Any]], known: Collection[str]) -> int:
    return sum(_name(each, known) != each for found in values.values() for each in found)


def _name(identifier: str, known: Collection[str]) -> str:
    if identifier in known:
        return identifier
    document = document_of(identifier)
    return document if document in known else identifier
