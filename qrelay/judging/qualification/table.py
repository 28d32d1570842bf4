"""Labels beside people's grades: one row a pair, one column a judge or a retrieval system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qrelay.chunks import chunks
from qrelay.errors import QrelayError
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.identity import digest, judge_digest
from qrelay.judging.calibration import BEHIND_BEST, MapInput, raw_score
from qrelay.judging.panel import Panel
from qrelay.judging.qualification.stages import Scores
from qrelay.types import Candidate, CandidateSet, Graded, Judgment, Missing, Passage, Query, Score

_SETS_AT_ONCE = 2


@dataclass(frozen=True)
class Table:
    """pairs: as people graded them (a grade may be None: not yet); relevant_from: the least relevant grade; labels:
    judge name -> a judgment a pair; judges: judge name -> judge hash; stages: system -> a score a pair; collection:
    what the pairs came from, for people."""

    pairs: tuple[GradedPair, ...]
    relevant_from: int
    labels: Mapping[str, tuple[Judgment, ...]]
    judges: Mapping[str, str]
    stages: Scores
    collection: str = ""

    @cached_property
    def graded(self) -> NDArray[np.int64]:
        """Rows that people graded."""
        return np.array([n for n, pair in enumerate(self.pairs) if pair.grade is not None], np.int64)

    @cached_property
    def grades(self) -> NDArray[np.int64]:
        """The grade of each row; the lowest one where people gave none (see `graded`)."""
        low = min((pair.grade for pair in self.pairs if pair.grade is not None), default=0)
        return np.array([low if pair.grade is None else pair.grade for pair in self.pairs], np.int64)

    @cached_property
    def relevant(self) -> NDArray[np.bool_]:
        """Whether people find each row relevant."""
        return np.asarray(self.grades >= self.relevant_from)

    @cached_property
    def queries(self) -> NDArray[np.str_]:
        """The query of each row."""
        return np.array([pair.query_id for pair in self.pairs])

    @cached_property
    def sha256(self) -> str:
        """The identity of the graded pairs: texts and grades."""
        fields = [(p.query, p.title, p.text, str(p.grade)) for p in self.pairs if p.grade is not None]
        return digest(str(self.relevant_from), *[digest(*each) for each in sorted(fields)])

    def column(self, name: str) -> NDArray[np.float64]:
        """One input's raw score of each row, nan where it has none. name: a judge's or a system's; with "/best"
        behind it, how far the row lies behind its query's best."""
        if name.endswith(BEHIND_BEST):
            return self._behind_best(self.column(name.removesuffix(BEHIND_BEST)))
        if name in self.stages:
            return self.stages[name]
        outcomes = [judgment.outcome for judgment in self.labels[name]]
        return np.array([raw_score(each) if isinstance(each, Graded) else np.nan for each in outcomes])

    def _behind_best(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        found = scores.copy()
        for query in np.unique(self.queries):
            rows = np.flatnonzero(self.queries == query)
            known = rows[~np.isnan(scores[rows])]
            if len(known):
                found[known] -= scores[known].max()
        return found

    def p_relevant(self, name: str) -> NDArray[np.float64]:
        """A judge's own P(relevant) of each row, nan where it is missing."""
        outcomes = [judgment.outcome for judgment in self.labels[name]]
        return np.array([each.p_relevant if isinstance(each, Graded) else np.nan for each in outcomes])

    def own_decision(self, name: str) -> NDArray[np.bool_]:
        """Whether a judge's own grade says relevant: P(relevant) of at least a half."""
        return np.nan_to_num(self.p_relevant(name), nan=0.0) >= 0.5

    def inputs(self, names: Sequence[str]) -> tuple[MapInput, ...]:
        """The map inputs of these names."""
        return tuple(self._input(name.removesuffix(BEHIND_BEST), name.endswith(BEHIND_BEST)) for name in names)

    def _input(self, name: str, behind_best: bool) -> MapInput:
        if name in self.stages:
            return MapInput("stage", name, behind_best=behind_best)
        return MapInput("judge", name, self.judges[name], behind_best)

    def cost(self, name: str) -> int:
        """Prompt tokens that this run paid for a judge's labels."""
        return sum(judgment.prompt_tokens for judgment in self.labels[name])


def candidate_sets(pairs: Sequence[GradedPair], stages: Scores) -> list[CandidateSet]:
    """The pairs as sets to judge, query by query, every passage sampled."""
    by_query: dict[str, list[int]] = {}
    for row, pair in enumerate(pairs):
        by_query.setdefault(pair.query_id, []).append(row)
    return [_set([pairs[row] for row in rows], rows, stages) for rows in by_query.values()]


def _set(pairs: Sequence[GradedPair], rows: Sequence[int], stages: Scores) -> CandidateSet:
    first = pairs[0]
    candidates = tuple(
        Candidate(
            Passage(pair.passage_id, pair.passage_id, pair.title, pair.text, pair.metadata),
            tuple(
                Score(name, float(scores[row]), 0) for name, scores in stages.items() if scores[row] == scores[row]
            ),
            sampled=True,
        )
        for pair, row in zip(pairs, rows, strict=True)
    )
    query = Query(first.query_id, first.query, "slice", reference_answers=first.reference_answers)
    return CandidateSet(query, candidates, "slice")


async def measure(
    panel: Panel,
    pairs: Sequence[GradedPair],
    stages: Scores,
    relevant_from: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Table:
    """The table of these pairs. What the cache holds costs nothing; `progress` is told of pairs as they are done.

    Raises:
        QrelayError: a query cannot be judged at all.
    """
    found: dict[tuple[str, str, str], Judgment] = {}
    sets = candidate_sets(pairs, stages)
    names = {hashed: name for name, judge in panel.judges.items() for hashed in judge.hashes}
    for part in chunks(sets, _SETS_AT_ONCE):
        for asked, judged in zip(part, await panel.judge(part), strict=True):
            if isinstance(judged, QrelayError):
                raise judged
            for each in judged.judgments:
                found[asked.query.query_id, each.passage_id, names[judge_digest(each.judge)]] = each
            progress(len(asked.candidates))
    labels = {name: tuple(found[pair.query_id, pair.passage_id, name] for pair in pairs) for name in panel.judges}
    return Table(
        tuple(pairs), relevant_from, labels, {name: judge.hashes[0] for name, judge in panel.judges.items()}, stages
    )


def missing_count(judgments: Sequence[Judgment]) -> int:
    """How many of them are missing."""
    return sum(isinstance(each.outcome, Missing) for each in judgments)
