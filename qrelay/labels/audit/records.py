"""The ledger as the checks read it: one query at a time, with what exports would make of it.

The labels are those of the audited judges alone, one a pair, as an export with the same judges takes them; human
overrides are beside them, never in them, for it is the judges that are audited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import orjson
import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.choice import one_a_pair
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.overrides import Override, standing_of
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery, Snapshot
from qrelay.labels.mining.examples import example_of
from qrelay.labels.mining.mine import MiningRules, Verdict
from qrelay.types import Candidate

_PAGE: Final = 64
_queries = schema.queries.c


@dataclass(frozen=True, slots=True)
class AuditedQuery:
    """A query as the checks see it.

    query: with every judge's labels and with candidates; labels: passage_id -> the one that counts of the audited
    judges; positives, negatives: of the example that an export would write, both empty where it would write none;
    overrides: those that stand, by passage_id.
    """

    query: LabelledQuery
    attributes: Mapping[str, str]
    index_version: str
    labels: Mapping[str, Label]
    positives: Sequence[Verdict]
    negatives: Sequence[Verdict]
    overrides: Mapping[str, Override]

    @property
    def candidates(self) -> dict[str, Candidate]:
        """The query's candidates by passage_id."""
        return {candidate.passage.passage_id: candidate for candidate in self.query.candidates}


@dataclass(frozen=True, slots=True)
class Judges:
    """Who is who: `every` judge of the ledger by number, and those whose labels are `audited`."""

    every: Mapping[int, JudgeRow]
    audited: Mapping[int, JudgeRow]
    relevant_grades: Mapping[str, int]

    def relevant(self, label: Label) -> bool:
        """Whether a graded label says relevant on its judge's scale. Raises InputError: see `relevant_from`."""
        scale = self.every[label.judge_no].identity.scale
        return label.grade is not None and label.grade >= self.relevant_from(scale)

    def relevant_from(self, scale: str) -> int:
        """The least relevant grade of a scale.

        Raises:
            InputError: the settings know none.
        """
        if scale not in self.relevant_grades:
            raise InputError(f"scale {scale!r} has no relevant grade: set sink.relevant_grades")
        return self.relevant_grades[scale]


def read(snapshot: Snapshot, collection: str, judges: Judges, rules: MiningRules) -> Iterator[AuditedQuery]:
    """Every query of the collection by query_id, read in pages of 64."""
    queries = snapshot.labelled_queries(collection)
    while page := list(islice(queries, _PAGE)):
        ids = [query.query_id for query in page]
        rows = _rows(snapshot.connection, collection, ids)
        overrides: dict[str, dict[str, Override]] = {}
        for (query_id, passage_id), each in standing_of(snapshot.connection, collection, ids).items():
            overrides.setdefault(query_id, {})[passage_id] = each
        for query in page:
            row = rows[query.query_id]
            labels = one_a_pair(query, judges.audited)
            example = example_of(query, labels, judges.audited, rules)
            yield AuditedQuery(
                query,
                orjson.loads(row.attributes),
                row.index_version,
                labels,
                example.positives if example else (),
                example.negatives if example else (),
                overrides.get(query.query_id, {}),
            )


def _rows(connection: sa.Connection, collection: str, ids: Sequence[str]) -> dict[str, Any]:
    chosen = sa.select(_queries.query_id, _queries.attributes, _queries.index_version)
    found = connection.execute(chosen.where(_queries.collection == collection, _queries.query_id.in_(ids)))
    return {row.query_id: row for row in found}
