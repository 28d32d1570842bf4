"""Reading what a tool's export holds: values from outside, of any type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qrelay.formats.annotated_pairs import GradedPair
from qrelay.formats.lines import BadRecord
from qrelay.identity import digest


def mapping(value: object, what: str) -> Mapping[str, Any]:
    """Raises BadRecord: it is no object."""
    if not isinstance(value, dict):
        raise BadRecord(f"{what} is no object: export it as JSON, as the tool writes it")
    return value


def several(value: object) -> list[Any]:
    """The list, or an empty one."""
    return value if isinstance(value, list) else []


def text(value: object) -> str:
    """A text or a number as text; "" for what is neither, a truth value too."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def grade(value: object, where: str) -> str:
    """As text; "" for none. Raises BadRecord: it is neither text nor number, so that no answer counts as none."""
    if value is not None and not text(value):
        raise BadRecord(
            f"{where}: the grade is no number: export answers to the question that `qrelay label tasks` wrote"
        )
    return text(value)


def ids(values: Mapping[str, Any], what: str) -> dict[str, str]:
    """query_id and passage_id. Raises BadRecord: one is absent."""
    found = {name: text(values.get(name)) for name in ("query_id", "passage_id")}
    if lacking := [name for name, value in found.items() if not value.strip()]:
        raise BadRecord(f"{what} has no {' and no '.join(lacking)}: keep what `qrelay label tasks` wrote there")
    return found


def shown(pair: GradedPair) -> dict[str, str]:
    """What a person sees of a pair: never a judge's label, nor another person's grade."""
    return {name: getattr(pair, name) for name in ("query", "title", "text")}


def pair_id(pair: GradedPair) -> str:
    """One id a pair, so that a tool that is given it twice has it once."""
    return digest(pair.query_id, pair.passage_id)[:32]
