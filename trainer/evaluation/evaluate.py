"""One evaluation: a system's run over a collection, its measures a query and on average, as data.

report = evaluate(collection, "bm25", run)
report.as_json()      # system, queries, means, per_query
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qrelay.errors import InputError
from trainer.evaluation.collection import Collection, Run
from trainer.evaluation.measures import STANDARD, Comparison, compare, per_query, wins_and_losses


@dataclass(frozen=True)
class Evaluation:
    """values: measure -> [queries], in the order of `query_ids`, which are sorted."""

    system: str
    query_ids: tuple[str, ...]
    values: Mapping[str, npt.NDArray[np.float64]]

    @property
    def means(self) -> dict[str, float]:
        """measure -> mean over all queries."""
        return {name: float(values.mean()) for name, values in self.values.items()}

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back."""
        return {
            "system": self.system,
            "queries": len(self.query_ids),
            "means": self.means,
            "query_ids": list(self.query_ids),
            "per_query": {name: values.tolist() for name, values in self.values.items()},
        }


def evaluate(collection: Collection, system: str, run: Run, measures: Sequence[str] = STANDARD) -> Evaluation:
    """The run's measures on the collection's qrels. Raises InputError: an unknown measure."""
    return Evaluation(system, tuple(sorted(collection.qrels)), per_query(collection.qrels, run, measures))


def from_json(found: Mapping[str, Any]) -> Evaluation:
    """An evaluation that `as_json` wrote. Raises InputError where it is none."""
    try:
        values = {name: np.array(column, np.float64) for name, column in found["per_query"].items()}
        return Evaluation(found["system"], tuple(found["query_ids"]), values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not an evaluation that `qrelay eval --json` wrote ({error})") from error


def compared(old: Evaluation, new: Evaluation, *, seed: int = 0) -> list[Comparison]:
    """Every measure that both have, paired by query.

    Raises:
        InputError: they are of different queries.
    """
    if old.query_ids != new.query_ids:
        raise InputError(
            f"{old.system} and {new.system} were measured on different queries: evaluate both on one collection"
        )
    return [compare(name, old.values[name], new.values[name], seed=seed) for name in new.values if name in old.values]


def comparison_json(old: Evaluation, new: Evaluation, *, shown: int = 10, seed: int = 0) -> dict[str, Any]:
    """Both systems' names, each measure's tests, and the queries that gained and lost most by the first measure."""
    tests = compared(old, new, seed=seed)
    first = tests[0].measure
    return {
        "old": old.system,
        "new": new.system,
        "measures": {test.measure: asdict(test) for test in tests},
        "queries": wins_and_losses(new.query_ids, old.values[first], new.values[first], shown),
    }
