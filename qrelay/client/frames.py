"""Records as rows and columns, for data frames and `datasets`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from qrelay.errors import SetupError
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment, Query


def rows(record: Any) -> Iterator[Mapping[str, Any]]:
    """A row for each candidate of a CandidateSet and each judgment of a JudgedSet; of anything else, itself."""
    match record:
        case CandidateSet():
            return (_candidate(record.query, each) for each in record.candidates)
        case JudgedSet():
            return _judged(record)
        case Exception():
            return iter([{"error": str(record)}])
        case _:
            return iter(
                [asdict(record) if is_dataclass(record) and not isinstance(record, type) else {"value": record}]
            )


def _candidate(query: Query, candidate: Candidate) -> dict[str, Any]:
    passage = candidate.passage
    row: dict[str, Any] = {
        "collection": query.collection, "query_id": query.query_id, "query": query.text, "round": query.round,
        "passage_id": passage.passage_id, "doc_id": passage.doc_id, "title": passage.title, "text": passage.text,
        "sampled": candidate.sampled,
    }  # fmt: skip
    for score in candidate.scores:
        row |= {f"{score.system}_score": score.score, f"{score.system}_rank": score.rank}
    return row


def _judged(record: JudgedSet) -> Iterator[Mapping[str, Any]]:
    found = {each.passage.passage_id: each for each in record.candidate_set.candidates}
    for judgment in record.judgments:
        passage = found.get(judgment.passage_id)
        yield (_candidate(record.candidate_set.query, passage) if passage else {}) | _judgment(judgment)


def _judgment(judgment: Judgment) -> dict[str, Any]:
    outcome = judgment.outcome
    graded = outcome if isinstance(outcome, Graded) else None
    return {
        "passage_id": judgment.passage_id,
        "grade": graded and graded.grade,
        "p_relevant": graded and graded.p_relevant,
        "expected_relevance": graded and graded.expected_relevance,
        "entropy": graded and graded.entropy,
        "missing": "" if isinstance(outcome, Graded) else outcome.reason,
        "reason": judgment.reason,
        "judge": judgment.judge.fingerprint,
        "strategy": judgment.judge.strategy,
        "scale": judgment.judge.scale,
        "judged_at": judgment.judged_at,
    }


def columns(records: Iterable[Any]) -> dict[str, list[Any]]:
    """The rows of all records by column, in the order in which columns appear; None where a row has none."""
    table = [row for record in records for row in rows(record)]
    names = dict.fromkeys(name for row in table for name in row)
    return {name: [row.get(name) for row in table] for name in names}


def pandas_frame(records: Iterable[Any]) -> Any:
    """A pandas.DataFrame of the rows. Raises SetupError: pandas is not installed."""
    return _library("pandas", "to_pandas").DataFrame(columns(records))


def dataset(records: Iterable[Any]) -> Any:
    """A datasets.Dataset of the rows. Raises SetupError: datasets is not installed."""
    return _library("datasets", "to_dataset").Dataset.from_dict(columns(records))


def _library(name: str, method: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SetupError(f"{method}() needs the package {name}: pip install {name}") from error
