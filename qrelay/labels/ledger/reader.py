"""Reading the ledger: a snapshot that writers do not disturb, read in pages, never whole.

Labels of retracted judges (`retractions.py`) are not among those that are read; `judged_set` alone shows them.

Everything comes in the order of ids (compared as UTF-8 bytes), which no commit order can change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import orjson
import sqlalchemy as sa

from qrelay.errors import UnknownCollection
from qrelay.labels.ledger import packing, people, retractions, schema, states
from qrelay.labels.ledger.bulk import in_chunks
from qrelay.labels.ledger.records import judgment_of, query_of
from qrelay.labels.ledger.states import CollectionStats, Submission, query_pages
from qrelay.labels.ledger.union import earlier_passages
from qrelay.nearest import did_you_mean, listed
from qrelay.scales import RELEVANT_GRADE
from qrelay.types import (
    Candidate,
    CandidateSet,
    JudgedSet,
    JudgeIdentity,
    Judgment,
)

_QUERIES_A_PAGE = 64
_LABELS_PAGE = 256
"""Queries without their candidates in one page."""
"""Values in one statement: databases limit the parameters of a statement."""

_queries, _judgments = schema.queries.c, schema.judgments.c
LABEL_COLUMNS = (
    _judgments.query_no, _judgments.passage_id, _judgments.judge_no, _judgments.grade, _judgments.min_grade,
    _judgments.p_relevant, _judgments.missing_reason, _judgments.entropy, _judgments.calibration,
    _judgments.generation,
)  # fmt: skip
"""query_no, then the fields of a `Label`."""
_MEASURED_COLUMNS = (
    *LABEL_COLUMNS, _judgments.expected_relevance, _judgments.probabilities, _judgments.utility,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class JudgeRow:
    """A judge as the ledger knows it."""

    judge_no: int
    judge_hash: str
    identity: JudgeIdentity


@dataclass(frozen=True, slots=True)
class Label:
    """What exports and selections need of a judgment. `grade`, `min_grade`, `p_relevant`, `entropy` (nats) and
    `calibration` (a map's hash, or empty) are None where it is missing, and `missing_reason` is None where it is
    not. `generation`: 0 came with the query, others with later rounds or by re-judging. An override is one too, with
    a `judge_no` below 0 and P(relevant) 1 or 0. Only where asked for: `expected`, the expected grade as a share of
    the scale, 0 to 1; `answer_nll`, nats a token, the text's with the passage less without it (below 0: the passage
    helps); None where it was not measured."""

    passage_id: str
    judge_no: int
    grade: int | None
    min_grade: int | None
    p_relevant: float | None
    missing_reason: str | None
    entropy: float | None
    calibration: str | None
    generation: int
    expected: float | None = None
    answer_nll: float | None = None

    @property
    def human(self) -> bool:
        """Whether a person gave it: an override."""
        return self.judge_no < 0


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query with its labels, by passage_id. `candidates`, where they were asked for, have the texts of the
    passages that have a label; `earlier` names those that only rounds before the latest returned; `attributes` is
    a JSON object of text to text."""

    query_id: str
    text: str
    labels: tuple[Label, ...]
    candidates: tuple[Candidate, ...] = ()
    earlier: frozenset[str] = frozenset()
    attributes: str = "{}"
    index_version: str = ""

    def attribute(self, name: str) -> str | None:
        """The value of one attribute, if the query has it."""
        value = orjson.loads(self.attributes).get(name)
        return None if value is None else str(value)


class Snapshot:
    """The ledger as it was when the transaction of `connection` first read."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        """For modules that read tables of their own within the same snapshot."""

    def stats(self, collection: str = "") -> list[CollectionStats]:
        """Counts by collection, by name; an empty name means all. Reads indexes, not judgments."""
        return states.collection_stats(self.connection, collection)

    def require_collection(self, collection: str) -> CollectionStats:
        """One collection's counts.

        Raises:
            UnknownCollection: the ledger holds no query of it; the text names those that it holds.
        """
        counts = {stats.collection: stats for stats in self.stats()}
        if collection in counts and counts[collection].queries:
            return counts[collection]
        held = [name for name, stats in counts.items() if stats.queries]
        raise UnknownCollection(
            f"the ledger holds no judged query of collection {collection!r}; it holds"
            f" {listed(held, 'none yet: feed queries first')}.{did_you_mean(collection, held)}"
        )

    def change_no(self, collection: str) -> int:
        """The number of the collection's last change; 0 where it has none."""
        columns = schema.collections.c
        chosen = sa.select(columns.change_no).where(columns.collection == collection)
        return int(self.connection.execute(chosen).scalar() or 0)

    @cached_property
    def retracted(self) -> dict[int, retractions.Retraction]:
        """The judges whose labels count no more, by number, with the decision that says so."""
        return retractions.standing(self.connection)

    def judges(self, *, retracted: bool = False) -> dict[int, JudgeRow]:
        """The judges by number; people too, as one pseudo-judge a scale that overrides are on. `retracted`: also
        those that are."""
        found = {judge[0]: JudgeRow(*judge) for judge in people.pseudo_judges(self.connection)}
        for number, hashed, *identity in self.connection.execute(sa.select(schema.judges)):
            found[number] = JudgeRow(number, hashed, JudgeIdentity(*identity))
        return found if retracted else {no: judge for no, judge in found.items() if no not in self.retracted}

    def judges_of(self, collection: str) -> set[int]:
        """The numbers of the judges that labelled something of the collection, people aside. Reads all judgments."""
        joined = schema.judgments.join(schema.queries, _judgments.query_no == _queries.query_no)
        chosen = sa.select(_judgments.judge_no).distinct().select_from(joined)
        return set(self.connection.execute(chosen.where(_queries.collection == collection)).scalars())

    def labelled_queries(
        self,
        collection: str,
        *,
        candidates: bool = True,
        ids: Sequence[str] | None = None,
        after: str = "",
        page: int = 0,
        changes: tuple[int, int] | None = None,
        overrides: bool = False,
        relevant_grades: Mapping[str, int] = RELEVANT_GRADE,
        measured: bool = False,
    ) -> Iterator[LabelledQuery]:
        """Every query with its labels, or those of `ids`, beyond the id `after`, by query_id; `page` of them are read
        at a time. `candidates`: with these too. `changes`: see `states.query_pages`. `overrides`: those that stand
        are labels too, relevant by `relevant_grades`, see `people.label_fields`. `measured`: labels come with
        `expected` and `answer_nll`."""
        page = page or (_QUERIES_A_PAGE if candidates else _LABELS_PAGE)
        for rows in query_pages(self.connection, collection, page, ids, after, changes):
            numbers = [row.query_no for row in rows]
            labels = self._labels(numbers, overrides, relevant_grades, measured)
            packed = self._packed(numbers) if candidates else {}
            texts = self._texts(collection, _hashes_to_read(packed, labels))
            for row in rows:
                document = packed.get(row.query_no)
                yield LabelledQuery(
                    row.query_id,
                    row.text,
                    tuple(labels.get(row.query_no, ())),
                    packing.candidates_of(document, texts) if document else (),
                    earlier_passages(document) if document else frozenset(),
                    row.attributes,
                    row.index_version,
                )

    def judged_set(self, collection: str, query_id: str) -> JudgedSet | None:
        """One committed set, whole, with all its judgments by passage, the first generation first; None where there
        is none."""
        row = self.connection.execute(
            sa.select(schema.queries).where(_queries.collection == collection, _queries.query_id == query_id)
        ).one_or_none()
        if row is None:
            return None
        document = self._packed([row.query_no])[row.query_no]
        texts = self._texts(collection, {hashed for hashed in document["text_hash"] if hashed})
        candidate_set = CandidateSet(
            query_of(row), packing.candidates_of(document, texts), row.index_version, packing.trace_of(document)
        )
        return JudgedSet(candidate_set, self._judgments(row.query_no))

    def submissions(self, collection: str, query_ids: Sequence[str] | None = None) -> Iterator[Submission]:
        """Where every submission stands, or those of `query_ids`: the committed ones by query_id, then the
        others by fingerprint."""
        return states.submissions(self.connection, collection, query_ids)

    def query_states(
        self, collection: str, query_ids: Sequence[str] | None = None, query_round: int = 0
    ) -> dict[str, str]:
        """See `Ledger.query_states`."""
        return states.query_states(self.connection, collection, query_ids, query_round)

    def _labels(
        self, numbers: Sequence[int], overrides: bool, relevant_grades: Mapping[str, int], measured: bool
    ) -> dict[int, list[Label]]:
        columns = _MEASURED_COLUMNS if measured else LABEL_COLUMNS
        chosen = sa.select(*columns).where(
            _judgments.query_no.in_(numbers), _judgments.judge_no.not_in(list(self.retracted))
        )
        found: dict[int, list[Label]] = {}
        for row in self.connection.execute(chosen.order_by(_judgments.query_no, _judgments.passage_id)):
            label = Label(*tuple[Any, ...](row)[1 : len(LABEL_COLUMNS)])
            if measured and label.grade is not None:
                steps = max(1, len(orjson.loads(row.probabilities)) - 1)  # the scale has a grade for each probability
                share = min(1.0, max(0.0, (row.expected_relevance - row.min_grade) / steps))
                nll, without = orjson.loads(row.utility)[:2] if row.utility else (None, None)
                gain = None if nll is None or without is None else float(nll) - float(without)
                label = replace(label, expected=share, answer_nll=gain)
            found.setdefault(row[0], []).append(label)
        human = people.label_fields(self.connection, numbers, relevant_grades) if overrides else {}
        for number, rows in human.items():
            labels = [*found.get(number, ()), *(Label(*(row if measured else row[:-1])) for row in rows)]
            found[number] = sorted(labels, key=lambda label: label.passage_id)
        return found

    def _packed(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        columns = schema.candidate_sets.c
        rows = self.connection.execute(
            sa.select(columns.query_no, columns.packed).where(columns.query_no.in_(numbers))
        )
        return {number: packing.unpack(packed) for number, packed in rows}

    def _texts(self, collection: str, hashes: set[str]) -> dict[str, tuple[str, str]]:
        columns, wanted = schema.passages.c, sorted(hashes)
        found: dict[str, tuple[str, str]] = {}
        for some in in_chunks(wanted):
            chosen = sa.select(columns.text_hash, columns.title, columns.text).where(
                columns.collection == collection, columns.text_hash.in_(some)
            )
            found.update({hashed: (title, text) for hashed, title, text in self.connection.execute(chosen)})
        return found

    def _judgments(self, query_no: int) -> tuple[Judgment, ...]:
        judges = self.judges(retracted=True)
        order = _judgments.passage_id, _judgments.generation, _judgments.judgment_key
        rows = self.connection.execute(
            sa.select(schema.judgments).where(_judgments.query_no == query_no).order_by(*order)
        )
        return tuple(judgment_of(row, judges[row.judge_no].identity) for row in rows)


def _hashes_to_read(packed: Mapping[int, Mapping[str, Any]], labels: Mapping[int, Sequence[Label]]) -> set[str]:
    """The text hashes of the passages that have a label."""
    wanted: set[str] = set()
    for number, document in packed.items():
        labelled = {label.passage_id for label in labels.get(number, ())}
        pairs = zip(document["passage_id"], document["text_hash"], strict=True)
        wanted.update(hashed for passage_id, hashed in pairs if hashed and passage_id in labelled)
    return wanted
