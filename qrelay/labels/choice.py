"""Which label counts where several judges labelled one (query, passage) pair.

By default: a person's (an override, where the reader asks for them) before a cascade's before a fused one before a
single judge's; of one kind a graded one before a missing one, then the latest generation, then the lowest judge hash.
So the label of a cascade that is missing is not replaced by its small judge's, which was not sure; and a re-judgment
that failed does not take an earlier grade away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from qrelay.errors import InputError
from qrelay.labels.ledger.precedence import HUMAN, kind_of, rank
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery, Snapshot
from qrelay.labels.mining.rules import MiningRules
from qrelay.scales import Scale


def chosen_judges(
    judges: Mapping[int, JudgeRow], wanted: str | None, present: Callable[[], set[int]]
) -> dict[int, JudgeRow]:
    """The judges whose labels count. `wanted`: None for all, the beginning of one's hash, or a strategy that one
    judge has. `present` gives the numbers of the judges that labelled the collection; it is asked only where
    `wanted` fits several. People are always among them, last: they have labels only where overrides are asked for,
    and then they win. "human" wants them alone.

    Raises:
        InputError: `wanted` names no judge, or several.
    """
    if wanted is None:
        return dict(judges)
    people = {no: judge for no, judge in judges.items() if judge.identity.strategy == HUMAN}
    if wanted == HUMAN and people:
        return people
    by_strategy = {no: judge for no, judge in judges.items() if judge.identity.strategy == wanted}
    found = by_strategy or {no: judge for no, judge in judges.items() if judge.judge_hash.startswith(wanted)}
    if len(found) > 1:
        here = present()
        found = {no: judge for no, judge in found.items() if no in here}
    if len(found) != 1:
        raise InputError(
            f"judge {wanted!r} names {len(found)} judges: give the beginning of one hash, or the strategy where one"
            f" judge has it, of {describe_judges(found or judges)}"
        )
    return found | people


def counting_judges(
    snapshot: Snapshot, collection: str, rules: MiningRules, wanted: str | None
) -> dict[int, JudgeRow]:
    """The judges that are `wanted`, less those that the rules leave out.

    Raises:
        InputError: as `chosen_judges`; or none is left.
    """
    judges = chosen_judges(snapshot.judges(), wanted, lambda: snapshot.judges_of(collection))
    return independent_judges(judges) if rules.without_stage_scores else judges


def describe_judges(judges: Mapping[int, JudgeRow]) -> str:
    """The judges for people, in one line."""
    named = sorted((j.judge_hash[:12], j.identity.strategy, j.identity.fingerprint) for j in judges.values())
    return ", ".join(f"{hashed} ({strategy}, {weights})" for hashed, strategy, weights in named) or "none"


def one_a_pair(query: LabelledQuery, judges: Mapping[int, JudgeRow]) -> dict[str, Label]:
    """passage_id -> the label that counts, by passage_id. Labels of other judges are not looked at."""
    best: dict[str, Label] = {}
    for label in in_order((label for label in query.labels if label.judge_no in judges), judges):
        best.setdefault(label.passage_id, label)
    return dict(sorted(best.items()))


def in_order(labels: Iterable[Label], judges: Mapping[int, JudgeRow]) -> list[Label]:
    """Labels in the order in which they count within a pair. `judges`: at least theirs."""

    kinds = {no: (kind_of(judge.identity), judge.judge_hash) for no, judge in judges.items()}
    return sorted(
        labels,
        key=lambda each: rank(kinds[each.judge_no][0], each.grade is None, each.generation, kinds[each.judge_no][1]),
    )


def relevant(label: Label, judges: Mapping[int, JudgeRow], relevant_grades: Mapping[str, int]) -> bool:
    """Whether the label says relevant on its judge's scale; a missing one does not.

    Raises:
        InputError: the scale has no relevant grade.
    """
    return Scale.named(judges[label.judge_no].identity.scale, relevant_grades).relevant(label.grade)


def independent_judges(judges: Mapping[int, JudgeRow]) -> dict[int, JudgeRow]:
    """Those whose labels do not lean on the retrieval stages' scores.

    Raises:
        InputError: there are judges, and all of them lean.
    """
    found = {no: judge for no, judge in judges.items() if not judge.identity.uses_retrieval_scores}
    if judges and not found:
        raise InputError(
            "every label asked for leans on the retrieval stages' scores: choose another judge with --judge, or set"
            " sink.without_stage_scores to false"
        )
    return found
