"""Nugget lists and assignments, made by hand."""

from __future__ import annotations

from typing import Any

from qrelay.judging.nuggets.records import VITAL, Assigned, Assignment, Nugget, NuggetList
from qrelay.types import Missing

QUERY = "how do I sort a list"


def nuggets(*texts: str, query_id: str = "q1") -> NuggetList:
    return NuggetList(query_id, QUERY, tuple(Nugget(each, VITAL, 0.9) for each in texts), {"model": "m"})


def assignment(*rows: tuple[str, str], **changed: Any) -> Assignment:
    credit = {"support": 2, "partial_support": 1, "not_support": 0}
    held = tuple(
        Assigned(
            Nugget(f"fact {n}", importance),
            said,
            tuple(float(credit[said] == grade) for grade in range(3)) if said else (),
            None if said else Missing("timeout", "too slow"),
        )
        for n, (importance, said) in enumerate(rows)
    )
    fields: dict[str, Any] = {
        "query_id": "q1",
        "run_id": "a",
        "text_id": "a",
        "nuggets": held,
        "judge": {},
        **changed,
    }
    return Assignment(**fields)
