"""A collection as mining sees it: every query with the labels that count and a verdict on every candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qrelay.labels.choice import chosen_judges, independent_judges, one_a_pair
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery, Snapshot
from qrelay.labels.mining.examples import Example, example_from, judged_passages
from qrelay.labels.mining.mine import mine
from qrelay.labels.mining.rules import MiningRules, Verdict
from qrelay.types import Candidate


@dataclass(frozen=True, slots=True)
class MinedQuery:
    """A query, the labels that count by passage_id, and what mining made of them. `judges`: by number."""

    query: LabelledQuery
    labels: Mapping[str, Label]
    verdicts: Sequence[Verdict]
    judges: Mapping[int, JudgeRow]

    @property
    def example(self) -> Example | None:
        """The example made of it, if there is one."""
        return example_from(self.query, self.verdicts)

    @property
    def others(self) -> list[tuple[Candidate, str]]:
        """The candidates without a verdict and why, in words of `rules.UNJUDGED_REASONS`, in the ledger's order."""
        seen = {verdict.passage_id for verdict in self.verdicts}
        left = [candidate for candidate in self.query.candidates if candidate.passage.passage_id not in seen]
        return [(each, "no_text" if each.passage.passage_id in self.labels else "not_judged") for each in left]


def survey(
    snapshot: Snapshot,
    collection: str,
    rules: MiningRules,
    *,
    judge: str | None = None,
    overrides: bool = False,
    query_id: str | None = None,
    changes: tuple[int, int] | None = None,
) -> Iterator[MinedQuery]:
    """Every query of the collection by query_id, or `query_id` alone, or those that `changes` touched last (the first
    number exclusive). `judge`: see `choice.chosen_judges`; `overrides`: people's decisions win.

    Raises:
        UnknownCollection: the ledger holds no query of it.
        InputError: no such judge, no label left to train on, or a scale without a relevant grade.
    """
    snapshot.require_collection(collection)
    judges = counting_judges(snapshot, collection, rules, judge)
    queries = snapshot.labelled_queries(
        collection,
        ids=None if query_id is None else [query_id],
        changes=changes,
        overrides=overrides,
        relevant_grades=rules.relevant_grades,
    )
    for query in queries:
        labels = one_a_pair(query, judges)
        verdicts = mine(judged_passages(query, labels, judges, rules), rules)
        yield MinedQuery(query, labels, verdicts, judges)


def counting_judges(
    snapshot: Snapshot, collection: str, rules: MiningRules, wanted: str | None
) -> dict[int, JudgeRow]:
    """The judges whose labels count: those that are wanted, less those that the rules leave out.

    Raises:
        InputError: no such judge, or none is left.
    """
    judges = chosen_judges(snapshot.judges(), wanted, lambda: snapshot.judges_of(collection))
    return independent_judges(judges) if rules.without_stage_scores else judges
