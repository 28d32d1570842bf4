"""One evaluation: a system's run over a collection, its measures a query and on average, as data.

report = evaluate(collection, "bm25", run)
report.as_json()      # system, queries, means, per_query, first
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qrelay.errors import InputError
from qrelay.formats.beir import Collection, Run
from qrelay.formats.runs import ranked
from qrelay.stats.intervals import percentile_interval
from qrelay.stats.paired import Comparison, bootstrap_means, compare
from qrelay.training.evaluation.measures import STANDARD, per_query

_SHOWN_CHARS: Final = 160
"""Of a document that was put first, in a report."""


@dataclass(frozen=True)
class Evaluation:
    """values: measure -> [queries], in the order of `query_ids`, which are sorted. first: query_id -> the document
    that the system put first, "" where it answered nothing. collection: hash of what it was measured on, ""
    where that is unknown."""

    system: str
    query_ids: tuple[str, ...]
    values: Mapping[str, npt.NDArray[np.float64]]
    first: Mapping[str, str] = field(default_factory=dict)
    collection: str = ""

    @property
    def means(self) -> dict[str, float]:
        """measure -> mean over all queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}

    def intervals(self, *, seed: int = 0) -> dict[str, tuple[float, float]]:
        """measure -> 95% bootstrap interval of its mean; nan with fewer than two queries."""
        draws = bootstrap_means(np.array(list(self.values.values())), seed=seed)
        return {name: percentile_interval(row) for name, row in zip(self.values, draws, strict=True)}

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back."""
        return {
            "system": self.system,
            "collection": self.collection,
            "queries": len(self.query_ids),
            "means": self.means,
            "query_ids": list(self.query_ids),
            "per_query": {name: values.tolist() for name, values in self.values.items()},
            "first": dict(self.first),
        }


def evaluate(collection: Collection, system: str, run: Run, measures: Sequence[str] = STANDARD) -> Evaluation:
    """The run's measures on the collection's qrels. Raises InputError: an unknown measure."""
    values = per_query(collection.qrels, run, measures, relevant_from=collection.relevant_from)
    query_ids = tuple(sorted(collection.qrels))
    first = {query_id: next(iter(ranked(run.get(query_id, {}))), "") for query_id in query_ids}
    return Evaluation(system, query_ids, values, first, collection.hash)


def from_json(found: Mapping[str, Any]) -> Evaluation:
    """An evaluation that `as_json` wrote. Raises InputError where it is none."""
    try:
        query_ids = tuple(found["query_ids"])
        values = {name: np.array(column, np.float64) for name, column in found["per_query"].items()}
        if any(column.shape != (len(query_ids),) for column in values.values()):
            raise ValueError("a measure has not one value a query")
        return Evaluation(
            found["system"], query_ids, values, dict(found.get("first") or {}), found.get("collection") or ""
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"not an evaluation of one model that `qrelay eval --json-file` wrote ({error})") from error


def compared(old: Evaluation, new: Evaluation, *, seed: int = 0) -> list[Comparison]:
    """Every measure that both have, paired by query; corrected (`*_holm`) for all of them.

    Raises:
        InputError: they are of different queries, corpora or qrels, or share no measure.
    """
    if old.query_ids != new.query_ids or (old.collection and new.collection and old.collection != new.collection):
        raise InputError(
            f"{old.system} and {new.system} were measured on different queries, documents or qrels: evaluate both on"
            " one collection"
        )
    return compare(old.values, new.values, seed=seed)


def comparison_json(
    old: Evaluation, new: Evaluation, collection: Collection | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Both systems' names, each measure's tests, and every query by the first measure (`outcomes`)."""
    tests = compared(old, new, seed=seed)
    return {
        "old": old.system,
        "new": new.system,
        "measures": {test.measure: _known(asdict(test)) for test in tests},
        "queries": {"measure": tests[0].measure, **outcomes(old, new, tests[0].measure, collection)},
    }


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """nan, which JSON has no word for, as None."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def outcomes(
    old: Evaluation, new: Evaluation, measure: str, collection: Collection | None = None
) -> dict[str, list[dict[str, Any]]]:
    """wins and losses, the largest first, and ties: each query with both values and what each system put first; with
    the collection, also the texts."""
    order = np.argsort(old.values[measure] - new.values[measure], kind="stable")
    rows = [_outcome(int(i), old, new, measure, collection) for i in order]
    return {
        "wins": [row for row in rows if row["new"] > row["old"]],
        "losses": [row for row in reversed(rows) if row["new"] < row["old"]],
        "ties": [row for row in rows if row["new"] == row["old"]],
    }


def _outcome(i: int, old: Evaluation, new: Evaluation, measure: str, collection: Collection | None) -> dict[str, Any]:
    query_id = new.query_ids[i]
    found: dict[str, Any] = {
        "query_id": query_id,
        "old": float(old.values[measure][i]),
        "new": float(new.values[measure][i]),
    }
    if collection:
        found["text"] = collection.queries.get(query_id, "")
    for side, evaluation in (("old", old), ("new", new)):
        doc_id = evaluation.first.get(query_id, "")
        found[f"{side}_first"] = doc_id
        if collection and doc_id:
            found[f"{side}_first_text"] = collection.text_of.get(doc_id, "")[:_SHOWN_CHARS]
            found[f"{side}_first_grade"] = collection.qrels[query_id].get(doc_id)
    return found
