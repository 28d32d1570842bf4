"""The overrides that stand, as the file of graded pairs that `qrelay judge calibrate` and `eval` read.

A pair whose passage has no text in the ledger is left out: nobody can judge it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from qrelay.errors import BackendUnavailable, InputError
from qrelay.formats import annotated_pairs
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.overrides import standing
from qrelay.labels.ledger.people import pseudo_judge
from qrelay.labels.ledger.reader import LabelledQuery, Snapshot

_PAGE: Final = 64


@dataclass(slots=True)
class PairsWritten:
    """Rows of the file, and overrides that were left out for their passage has no text."""

    rows: int
    without_text: int
    scale: str


def write_annotated_pairs(snapshot: Snapshot, collection: str, path: Path, scale: str = "") -> PairsWritten:
    """Writes the overrides on one scale, by query_id and passage_id, whole or not at all, a page in memory at a time.
    No `scale`: the one that they are on.

    Raises:
        InputError: there is none to write, or they are on several scales.
        BackendUnavailable: the file cannot be written.
    """
    scale = scale or _only_scale(snapshot.connection, collection)
    written = PairsWritten(0, 0, scale)
    try:
        pairs = list(_pairs(snapshot, collection, written))
        annotated_pairs.write_annotated_pairs(path, pairs, metadata=any(each.metadata for each in pairs))
    except OSError as error:
        raise BackendUnavailable(f"cannot write {path}: {error.strerror}; nothing was changed there") from error
    return written


def _pairs(snapshot: Snapshot, collection: str, counts: PairsWritten) -> Iterator[GradedPair]:
    """The pairs with a text; counts all. Raises InputError: there is none."""
    judge_no = pseudo_judge(counts.scale)[0]
    for query in _queries(snapshot, collection):
        passages = {candidate.passage.passage_id: candidate.passage for candidate in query.candidates}
        for label in query.labels:
            if label.judge_no != judge_no:
                continue
            passage = passages.get(label.passage_id)
            if passage is None or not passage.text:
                counts.without_text += 1
                continue
            counts.rows += 1
            yield GradedPair(
                query.query_id, label.passage_id, label.grade, query.text, passage.title, passage.text, (),
                passage.metadata,
            )  # fmt: skip
    if not counts.rows:
        raise InputError(
            f"no override of collection {collection} on the scale {counts.scale} has a passage with a text in the"
            f" ledger ({counts.without_text} have none): set some with `qrelay label set` or `import`"
        )


def _queries(snapshot: Snapshot, collection: str) -> Iterator[LabelledQuery]:
    """The queries that an override stands for."""
    columns = schema.queries.c
    chosen = (
        sa.select(columns.query_id)
        .where(columns.collection == collection)
        .where(sa.exists().where(schema.overrides.c.query_no == columns.query_no, standing()))
        .order_by(columns.query_id)
        .limit(_PAGE)
    )
    last = ""
    while ids := list(snapshot.connection.execute(chosen.where(columns.query_id > last)).scalars()):
        yield from snapshot.labelled_queries(collection, ids=ids, overrides=True)
        last = ids[-1]


def _only_scale(connection: sa.Connection, collection: str) -> str:
    joined = schema.overrides.join(schema.queries, schema.overrides.c.query_no == schema.queries.c.query_no)
    chosen = sa.select(schema.overrides.c.scale).distinct().select_from(joined)
    found = sorted(connection.execute(chosen.where(schema.queries.c.collection == collection, standing())).scalars())
    if not found:
        raise InputError(f"collection {collection} has no override: set some with `qrelay label set` or `import`")
    if len(found) > 1:
        raise InputError(
            f"the overrides of collection {collection} are on the scales {', '.join(found)}: pairs are on one;"
            " name it with --scale"
        )
    return str(found[0])
