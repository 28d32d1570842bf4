"""One query whole: its passages as the last system ranked them, with all that was measured and decided of each.

    view = whole(snapshot, "docs", "q17", settings.rules)
    for passage in view.passages: passage.candidate.scores, passage.labels, passage.mined, passage.decisions

What mining made of a passage, and why, comes from `examples.py` and `mining/explain.py`, as in exports with people's
decisions (`--overrides`) and in `qrelay mine --explain`. Labels come in the order in which they count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.browse.letters import Letter, of_query
from qrelay.labels.choice import counting_judges
from qrelay.labels.examples import Example, example_of
from qrelay.labels.ledger import overrides, schema
from qrelay.labels.ledger.overrides import Override
from qrelay.labels.ledger.precedence import kind_of, rank
from qrelay.labels.ledger.reader import JudgeRow, Snapshot
from qrelay.labels.ledger.reasons import reasons
from qrelay.labels.ledger.records import judgment_of
from qrelay.labels.mining.explain import Explained, explain
from qrelay.labels.mining.rules import MiningRules
from qrelay.ranks import current_model, rank_of
from qrelay.types import Candidate, CandidateSet, Graded, Judgment, Passage

_judgments, _generations, _queries = schema.judgments.c, schema.generations.c, schema.queries.c


@dataclass(frozen=True, slots=True)
class Given:
    """A judge's label of a passage. `counts`: the first of the judges', if theirs decide; `retracted`: it counts
    nowhere, for its judge's labels were retracted."""

    judge: JudgeRow
    judgment: Judgment
    generation: int
    retracted: bool

    @property
    def graded(self) -> Graded | None:
        """The grade; None where the label is missing."""
        return self.judgment.outcome if isinstance(self.judgment.outcome, Graded) else None


@dataclass(frozen=True, slots=True)
class Shown:
    """A passage. `place`: among the query's, from 1, by the current model; `labels`: those that count first;
    `mined`: None where the rules cannot be applied (`Whole.unmined` says why); `decisions`: people's, oldest first,
    withdrawals too."""

    place: int
    candidate: Candidate
    labels: tuple[Given, ...] = ()
    mined: Explained | None = None
    decisions: tuple[Override, ...] = ()

    @property
    def standing(self) -> Override | None:
        """The decision that stands."""
        return next((each for each in reversed(self.decisions) if each.stands), None)

    def of(self, person: str) -> Override | None:
        """The person's own latest grade; None where they gave none or took it back."""
        latest = next((each for each in reversed(self.decisions) if each.author == person), None)
        return latest if latest is not None and latest.grade is not None else None


@dataclass(frozen=True, slots=True)
class Added:
    """A time that judgments came: the commit, another round, judging again (`round` None)."""

    generation: int
    added_us: int
    judgments: int
    round: int | None
    left_out: int


@dataclass(frozen=True, slots=True)
class Whole:
    """`record`: the committed set, `passages` with candidates and those that only people named. `system`: the
    current model, by which passages are ranked. `example`: whether mining found one in the query. `last_decision`:
    the number of the ledger's latest decision, for `deciding.py`."""

    record: CandidateSet
    committed_us: int
    passages: tuple[Shown, ...]
    systems: tuple[str, ...]
    system: str
    added: tuple[Added, ...] = ()
    letters: tuple[Letter, ...] = ()
    example: bool = False
    unmined: str = ""
    last_decision: int = 0


def whole(snapshot: Snapshot, collection: str, query_id: str, rules: MiningRules) -> Whole | None:
    """The query, or None where the ledger holds none of this id. `rules`: those of exports."""
    record = snapshot.judged_set(collection, query_id)
    if record is None:
        return None
    connection = snapshot.connection
    chosen = sa.select(_queries.query_no, _queries.committed_us)
    number, committed_us = connection.execute(
        chosen.where(_queries.collection == collection, _queries.query_id == query_id)
    ).one()
    candidates = record.candidate_set.candidates
    system = current_model(candidates)
    mined, example, unmined = _mined(snapshot, collection, query_id, rules)
    decided = _decisions(connection, collection, query_id)
    labels = _given(snapshot, number)
    ranked = sorted(candidates, key=lambda each: (rank_of(each, system), each.passage.passage_id))
    named = [
        Candidate(Passage(each, "", "", ""), ()) for each in sorted(decided.keys() - {_id(c) for c in candidates})
    ]
    passages = [
        Shown(place, each, labels.get(_id(each), ()), mined.get(_id(each)), decided.get(_id(each), ()))
        for place, each in enumerate([*ranked, *named], 1)
    ]
    return Whole(
        record.candidate_set, committed_us, tuple(passages), _systems(candidates, system), system,
        _added(connection, number), of_query(connection, collection, query_id), example, unmined,
        last_decision(connection),
    )  # fmt: skip


def last_decision(connection: sa.Connection) -> int:
    """The number of the latest decision in the ledger; 0 where there is none."""
    return int(connection.execute(sa.select(sa.func.max(schema.overrides.c.override_no))).scalar() or 0)


def _id(candidate: Candidate) -> str:
    return candidate.passage.passage_id


def _systems(candidates: Sequence[Candidate], system: str) -> tuple[str, ...]:
    """Every system that said something, the current model first."""
    names = {score.system for each in candidates for score in each.scores}
    return tuple(sorted(names, key=lambda name: (name != system, name)))


def _mined(
    snapshot: Snapshot, collection: str, query_id: str, rules: MiningRules
) -> tuple[dict[str, Explained], bool, str]:
    """(passage_id -> what mining made of it, whether there is an example, why mining cannot be asked)."""
    read = snapshot.labelled_queries(
        collection, ids=[query_id], overrides=True, relevant_grades=rules.relevant_grades
    )
    try:
        [query] = read
        example: Example = example_of(query, counting_judges(snapshot, collection, rules, None), rules)
        rows = explain(example, rules, reasons(snapshot.connection, collection, [query_id]))
    except InputError as error:  # a scale without a relevant grade, or only labels that lean on scores
        return {}, False, str(error)
    return {_id(row.candidate): row for row in rows}, bool(example.positives), ""


def _given(snapshot: Snapshot, query_no: int) -> dict[str, tuple[Given, ...]]:
    judges = snapshot.judges(retracted=True)
    rows = snapshot.connection.execute(sa.select(schema.judgments).where(_judgments.query_no == query_no))
    found: dict[str, list[Given]] = {}
    for row in rows:
        judge = judges[row.judge_no]
        given = Given(judge, judgment_of(row, judge.identity), row.generation, row.judge_no in snapshot.retracted)
        found.setdefault(row.passage_id, []).append(given)
    return {passage_id: tuple(sorted(given, key=_counting)) for passage_id, given in found.items()}


def _counting(each: Given) -> tuple[Any, ...]:
    missing = each.graded is None
    return each.retracted, rank(kind_of(each.judge.identity), missing, each.generation, each.judge.judge_hash)


def _decisions(connection: sa.Connection, collection: str, query_id: str) -> dict[str, tuple[Override, ...]]:
    found: dict[str, list[Override]] = {}
    for each in overrides.history(connection, collection, query_id):
        found.setdefault(each.passage_id, []).append(each)
    return {passage_id: tuple(rows) for passage_id, rows in found.items()}


def _added(connection: sa.Connection, query_no: int) -> tuple[Added, ...]:
    chosen = sa.select(
        _generations.generation, _generations.added_us, _generations.judgments, _generations.round,
        _generations.left_out,
    )  # fmt: skip
    ordered = chosen.where(_generations.query_no == query_no).order_by(_generations.generation)
    return tuple(Added(*row) for row in connection.execute(ordered))


def latest_scale(connection: sa.Connection, collection: str) -> str:
    """The scale of the collection's latest decision; "" where there is none."""
    decided = schema.overrides.c
    joined = schema.overrides.join(schema.queries, decided.query_no == _queries.query_no)
    chosen = sa.select(decided.scale).select_from(joined).where(_queries.collection == collection)
    return str(connection.execute(chosen.order_by(decided.override_no.desc()).limit(1)).scalar() or "")
