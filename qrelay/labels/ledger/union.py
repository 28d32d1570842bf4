"""The candidates of two rounds of one query as one set: pure functions of what `packing.py` packs.

    who returned it        scores, ranks, doc_id     text          sampled
    one of the rounds      as there                  as there      as there
    both                   the later round's         see below     in either

Metadata is the latest round's that brought any, as scores are: a label's key says which of it the judge read.

A candidate's scores and ranks are those of the latest round that returned it, all systems' together: mining asks what
the current model ranks high, and ranks of two models beside each other would say nothing. What no later round
returned keeps its own: it misled a former model, and examples accumulate. The order is by round, the latest first,
and within one the set's; so the union does not depend on the order in which rounds arrive.

A text is never lost: passages that are not sampled travel without theirs, and one that is stored stays. Where both
have a text and they differ (the corpus changed), labels decide: a passage that is labelled keeps the text that its
labels are about, and the other round's candidate is *changed*: nothing of it is taken. Where it is not labelled, the
text that came stands.

Beside the columns of a set, a union has "rounds", a round a candidate, "metadata_rounds", likewise, where there is
metadata, and "earlier", of each earlier round [round, index_version, trace]; the query's row and "trace" name the
latest.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from qrelay.labels.ledger.columns import SILENT
from qrelay.labels.ledger.packing import COLUMNS, metadata_in


@dataclass(frozen=True, slots=True)
class Side:
    """A set as it is packed, the (latest) round that it is of, and the index that it came from."""

    document: dict[str, Any]
    round: int
    index_version: str


class Union(NamedTuple):
    """The union; `changed` are the passages of the set that came whose text is another one here."""

    side: Side
    changed: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Row:
    """One candidate; scores: system -> (score, rank); metadata: the round that it is of, and itself."""

    passage_id: str
    doc_id: str
    text_hash: str
    sampled: int
    scores: dict[str, tuple[float | None, int]]
    round: int
    metadata: tuple[int, dict[str, str]]


def unite(stored: Side, came: Side, *, without_text: Collection[str], labelled: Collection[str]) -> Union:
    """What the ledger holds of a query, and a set of another round of it.

    `without_text`: hashes, of either side, of passages without a text (a title, or the empty hash). `labelled`:
    passage_ids whose stored text has a label.
    """
    held = {row.passage_id: row for row in _rows(stored)}
    changed = set()
    for row in _rows(came):
        there = held.get(row.passage_id)
        if there is not None and _is_change(there, row, without_text, labelled):
            changed.add(row.passage_id)
            continue
        if there is not None and row.round > there.round:
            del held[row.passage_id]  # its place is the newer set's
        held[row.passage_id] = row if there is None else _joined(there, row, without_text)
    rows = sorted(held.values(), key=lambda row: -row.round)  # stable: within a round, the set's order
    return Union(_side(rows, stored, came), frozenset(changed))


def earlier_passages(document: dict[str, Any]) -> frozenset[str]:
    """passage_ids that only rounds before the latest returned."""
    rounds = document.get("rounds", ())
    latest = max(rounds, default=0)
    return frozenset(p for p, r in zip(document["passage_id"], rounds, strict=False) if r < latest)


def _rows(side: Side) -> list[_Row]:
    document = side.document
    rounds = document.get("rounds") or [side.round] * len(document["passage_id"])
    columns = (
        *(document[name] for name in COLUMNS),
        _scores(document),
        rounds,
        zip(document.get("metadata_rounds") or rounds, metadata_in(document), strict=True),
    )
    return [_Row(*fields) for fields in zip(*columns, strict=True)]


def _scores(document: dict[str, Any]) -> list[dict[str, tuple[float | None, int]]]:
    systems = document["systems"].items()
    count = len(document["passage_id"])
    return [{name: (s[i], r[i]) for name, (s, r) in systems if r[i] != SILENT} for i in range(count)]


def _is_change(there: _Row, row: _Row, without_text: Collection[str], labelled: Collection[str]) -> bool:
    other = row.text_hash not in without_text and row.text_hash != there.text_hash
    return other and row.passage_id in labelled


def _joined(there: _Row, row: _Row, without_text: Collection[str]) -> _Row:
    newer = row if row.round > there.round else there
    stays = row.text_hash in without_text
    text_hash = there.text_hash or row.text_hash if stays else row.text_hash
    metadata = max(there.metadata, row.metadata, key=lambda each: (bool(each[1]), each[0]))
    return replace(newer, text_hash=text_hash, sampled=there.sampled | row.sampled, metadata=metadata)


def _side(rows: list[_Row], *sides: Side) -> Side:
    """`sides`: what the rows came from, for the traces and index versions."""
    latest = max(sides, key=lambda side: side.round)
    earlier = [each for side in sides for each in side.document.get("earlier", ())]
    earlier += [[s.round, s.index_version, s.document["trace"]] for s in sides if s is not latest]
    names = dict.fromkeys(name for row in rows for name in row.scores)
    silent = (None, SILENT)
    document = {
        "passage_id": [row.passage_id for row in rows],
        "doc_id": [row.doc_id for row in rows],
        "text_hash": [row.text_hash for row in rows],
        "sampled": [row.sampled for row in rows],
        "systems": {n: [list(column) for column in zip(*(row.scores.get(n, silent) for row in rows), strict=True)]
                    for n in names},
        "trace": latest.document["trace"],
        "rounds": [row.round for row in rows],
        "earlier": sorted(earlier, key=lambda each: -each[0]),
    }  # fmt: skip
    if any(row.metadata[1] for row in rows):
        document["metadata_rounds"], document["metadata"] = zip(*(row.metadata for row in rows), strict=True)
    return Side(document, latest.round, latest.index_version)
