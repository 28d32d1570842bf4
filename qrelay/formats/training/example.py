"""One training example, whatever file it is from, and what is decided of its passages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from qrelay.formats.lines import BadRecord
from qrelay.formats.records import REPLACEMENT, require_text
from qrelay.types import Passage

Row = Mapping[str, Any]
"""A row as its file has it: field -> value."""
Scores = Literal["beside", "labels", "none"]
"""Where teacher scores go: beside the passages; in place of labels, in sets that have some; nowhere."""
Look = Callable[[Any], Passage]
"""A value of a row (a text, an object, an id) as a passage. Raises BadRecord."""
_SOURCES: Final = ("subset", "source", "dataset", "dataset_name", "collection")


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A query with the passages that a row says are relevant, and those that it says are not. source: the data set
    that the row names as its own, or empty."""

    query_id: str
    query: str
    positives: tuple[Passage, ...]
    negatives: tuple[Passage, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a passage: dropped where it is not kept; a positive where it is relevant, else a negative.
    score: the teacher's P(relevant), 0 to 1; None where it was not judged."""

    relevant: bool
    keep: bool = True
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """The decisions on an example, in the order of its passages."""

    positives: tuple[Decision, ...]
    negatives: tuple[Decision, ...]
    promoted: tuple[int, ...] = field(init=False)
    """Places of negatives that become positives."""

    def __post_init__(self) -> None:
        places = (place for place, each in enumerate(self.negatives) if each.keep and each.relevant)
        object.__setattr__(self, "promoted", tuple(places))

    @property
    def kept_positives(self) -> tuple[int, ...]:
        """Places of positives that stay."""
        return tuple(place for place, each in enumerate(self.positives) if each.keep)

    @property
    def kept_negatives(self) -> tuple[int, ...]:
        """Places of negatives that stay negatives."""
        return tuple(place for place, each in enumerate(self.negatives) if each.keep and not each.relevant)


class Layout(Protocol):
    """Where rows have their query and passages."""

    @property
    def name(self) -> str:
        """The format, as --format has it."""

    def example(self, row: Row) -> TrainingExample:
        """Raises BadRecord: the row is none."""

    def cleaned(self, row: Row, decided: Decided) -> list[dict[str, Any]]:
        """What is left of the row, with its other fields as they are; none where nothing is left to train on."""


def text_of(row: Row, name: str) -> str:
    """A field that must hold a text. Raises BadRecord."""
    return plain(row.get(name), name)


def query_of(row: Row, name: str) -> str:
    """A field that must hold a query. Raises BadRecord: also where it is blank."""
    found = text_of(row, name)
    if not found.strip():
        raise BadRecord(f"{name} is empty: a query has a text")
    return found


def plain(value: object, what: str) -> str:
    """A text without NUL. Raises BadRecord: it is none."""
    if not isinstance(value, str):
        raise BadRecord(f"{what} must be text, not {type(value).__name__}")
    require_text(value, what)
    return value.replace("\0", REPLACEMENT)


def list_of(row: Row, name: str, *, optional: bool = False) -> list[Any]:
    """A field that must hold a list; an absent or null one is empty where it is `optional`. Raises BadRecord."""
    value = row.get(name)
    if value is None and optional:
        return []
    if not isinstance(value, list):
        raise BadRecord(f"{name} must be a list, not {type(value).__name__}")
    return value


def id_of(row: Row, *names: str) -> str:
    """The first of these fields that holds an id; empty where none does."""
    found = next((row[name] for name in names if isinstance(row.get(name), str | int)), "")
    return str(found)


def source_of(row: Row) -> str:
    """The data set that a row names as its own."""
    return next((row[name] for name in _SOURCES if isinstance(row.get(name), str)), "")


def of_text(value: Any) -> Passage:
    """A passage that is nothing but its text. Raises BadRecord."""
    return Passage("", "", "", plain(value, "a passage"))
