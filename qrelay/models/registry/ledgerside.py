"""What the registry and `qrelay judge check` ask the ledger; `qrelay.labels.lineage.side` answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from qrelay.models.registry.manifest import DataSource
from qrelay.types import JudgedSet, JudgeIdentity


class LedgerLabel(NamedTuple):
    """One judge's latest grade of a pair, as P(relevant) and as a decision on the judge's scale."""

    p_relevant: float
    relevant: bool


@dataclass(frozen=True, slots=True)
class LedgerPair:
    """A pair that a judge was asked about. `scores`: by system, those that are known; `labels`: by judge hash, those
    that have a grade; `counts`: hash of the judge whose label an export takes, missing ones included, or empty;
    `mined`: its role in the example that an export writes now: positive, hard, easy, or empty; `person`: whether the
    override that stands calls it relevant, None where there is none."""

    passage_id: str
    doc_id: str
    scores: Mapping[str, float]
    labels: Mapping[str, LedgerLabel]
    counts: str
    mined: str
    person: bool | None


@dataclass(frozen=True, slots=True)
class LedgerQuery:
    """A query with its pairs, by passage_id."""

    query_id: str
    text: str
    pairs: tuple[LedgerPair, ...]


class LedgerSide(Protocol):
    """One open ledger, as versions and their data see it."""

    def where(self) -> str:
        """The ledger's address, without a password."""

    def has_labels(self) -> bool:
        """Whether it holds a judgment of any collection."""

    def collections(self) -> Sequence[str]:
        """The collections that it holds queries of, by name."""

    def retract(self, judge: str, *, author: str, reason: str) -> Mapping[str, Any]:
        """Labels of the judge count no more. `judge`: the beginning of its hash. What that touched: `judge` (the
        whole hash), `changed`, `labels`, `queries`, `collections`. Raises InputError: no such judge, or several."""

    def restore(self, judge: str, *, author: str, reason: str) -> Mapping[str, Any]:
        """Undoes `retract`; the same."""

    def covered(self, source: DataSource) -> Mapping[str, Any]:
        """What of the ledger the data was made of: `collection`, `from`, `to` (changes; None: not known, so that all
        that the ledger holds now is meant) and `judges` (hashes; empty: all)."""

    def counts(self, source: DataSource) -> Mapping[str, Any]:
        """`queries`, `judgments`, and `judges`: hash -> measurements, graded, missing, counted."""

    def judgments(self, source: DataSource, query_id: str = "") -> Iterator[Mapping[str, Any]]:
        """Every judgment that the data's change range covers, or the query's, by query_id and passage_id."""

    def judges(self) -> Mapping[str, JudgeIdentity]:
        """Every judge by hash, retracted ones and people aside."""

    def labelled(self, collection: str, judge: str | None = None) -> Iterator[LedgerQuery]:
        """The collection's queries by query_id, in one snapshot. `judge`: whose labels count, as exports name judges;
        None: as exports choose. Raises UnknownCollection; InputError: no such judge."""

    def judged_set(self, collection: str, query_id: str) -> JudgedSet | None:
        """One query's set, whole, with the judgments of all judges; None where there is none."""
