"""Every labelled pair of a collection, with what judges, retrieval systems, people and mining say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from qrelay.labels.audit.audit import Request, who_is_who
from qrelay.labels.audit.judges import Judges
from qrelay.labels.examples import Example, examples
from qrelay.labels.ledger.reader import Label, Snapshot
from qrelay.labels.mining.rules import MiningRules
from qrelay.models.registry.ledgerside import LedgerLabel, LedgerPair, LedgerQuery
from qrelay.types import Candidate


def labelled(
    snapshot: Snapshot, collection: str, rules: MiningRules, judge: str | None = None
) -> Iterator[LedgerQuery]:
    """See `qrelay.models.registry.ledgerside.LedgerSide.labelled`. Labels count, and are mined, as an export without
    overrides does it: people's decisions stand beside them.

    Raises:
        UnknownCollection: the ledger holds no query of it.
        InputError: no such judge, or a scale without a relevant grade.
    """
    snapshot.require_collection(collection)
    who, _ = who_is_who(snapshot, collection, Request(judge=judge), rules)
    for record in examples(snapshot, collection, who.audited, rules, people=True):
        yield _query(record, who)


def _query(record: Example, who: Judges) -> LedgerQuery:
    latest: dict[str, dict[int, Label]] = {}
    people = {label.passage_id: label for label in record.query.labels if label.human}
    for label in sorted(record.query.labels, key=lambda each: each.generation):
        if label.human:
            continue
        if label.p_relevant is not None:
            latest.setdefault(label.passage_id, {})[label.judge_no] = label
        else:
            latest.setdefault(label.passage_id, {})
    mined = {verdict.passage_id: "positive" for verdict in record.positives}
    mined |= {verdict.passage_id: "hard" if verdict.hard else "easy" for verdict in record.negatives}
    candidates = record.candidates
    pairs = (
        _pair(record, candidates[passage_id], labels, people.get(passage_id), mined.get(passage_id, ""), who)
        for passage_id, labels in sorted(latest.items())
        if passage_id in candidates
    )
    return LedgerQuery(record.query.query_id, record.query.text, tuple(pairs))


def _pair(
    record: Example, candidate: Candidate, labels: Mapping[int, Label], person: Label | None, mined: str, who: Judges
) -> LedgerPair:
    passage_id = candidate.passage.passage_id
    counting = record.labels.get(passage_id)
    return LedgerPair(
        passage_id,
        candidate.passage.doc_id,
        {each.system: each.score for each in candidate.scores if each.score is not None},
        {
            who.every[number].judge_hash: LedgerLabel(float(label.p_relevant or 0.0), who.relevant(label))
            for number, label in labels.items()
        },
        who.every[counting.judge_no].judge_hash if counting else "",
        mined,
        None if person is None else who.relevant(person),
    )
