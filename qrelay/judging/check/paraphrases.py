"""One judge on paraphrases: the same pairs asked again, with changes that must not move a label.

The sample is the one that people would be given to grade (`qualification/sampling.py`): half of it where the judge is
least sure, so that its share of flips is higher than over all labels. What was asked before comes from the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np

from qrelay.chunks import chunks
from qrelay.errors import BudgetExhausted, QrelayError
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.identity import judge_digest
from qrelay.judging.check.evidence import Evidence
from qrelay.judging.check.figures import mean_by, share
from qrelay.judging.core import JudgeCore
from qrelay.judging.preview import shown_name
from qrelay.judging.qualification.sampling import Judged, choose
from qrelay.progress import Step, step
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment

RELEVANT: Final = 0.5
"""P(relevant) from which a judge's own answer says relevant."""
_SETS_AT_ONCE: Final = 2
_CHARS_A_TOKEN: Final = 4


class Texts(NamedTuple):
    """What a judge reads of a pair."""

    query: str
    title: str
    text: str


REWRITES: Final[Mapping[str, Callable[[Texts], Texts]]] = {
    "query in lower case": lambda each: each._replace(query=each.query.lower()),
    "query without its question mark": lambda each: each._replace(query=each.query.rstrip(" ?") or each.query),
    "query after 'Please tell me:'": lambda each: each._replace(query=f"Please tell me: {each.query}"),
    "text with double blanks": lambda each: each._replace(text=each.text.replace(" ", "  ")),
    "title said again before the text": lambda each: each._replace(
        text=f"{each.title}. {each.text}" if each.title else each.text
    ),
    "no title": lambda each: each._replace(title=""),
    "neutral sentence after the text": lambda each: each._replace(
        text=f"{each.text} This page was last updated in March."
    ),
}
"""By name. A pair that a rewrite leaves as it is (no title, say) is not asked with it."""


def sample(evidence: Evidence, n: int) -> list[tuple[str, str]]:
    """About `n` pairs, (query_id, passage_id), of the labels that count; the same call gives the same pairs."""
    rows = np.flatnonzero(~np.isnan(evidence.counts))
    pairs = [(*evidence.pair(row), float(evidence.counts[row])) for row in rows]
    judged = [Judged(GradedPair(query, passage, None, "", "", ""), p, 0.0) for query, passage, p in pairs]
    return [(each.query_id, each.passage_id) for each in choose(judged, n)]


def narrowed(pairs: Iterable[tuple[str, str]], fetch: Callable[[str], JudgedSet | None]) -> list[JudgedSet]:
    """The ledger's sets of these pairs, with only their passages and judgments; those without a text are left out."""
    wanted: dict[str, set[str]] = {}
    for query_id, passage_id in pairs:
        wanted.setdefault(query_id, set()).add(passage_id)
    found = [(fetch(query_id), ids) for query_id, ids in sorted(wanted.items())]
    return [_only(each, ids) for each, ids in found if each is not None]


def _only(found: JudgedSet, ids: set[str]) -> JudgedSet:
    kept = tuple(
        replace(each, sampled=True)
        for each in found.candidate_set.candidates
        if each.passage.passage_id in ids and each.passage.text
    )
    judgments = tuple(each for each in found.judgments if each.passage_id in ids)
    return JudgedSet(replace(found.candidate_set, candidates=kept), judgments)


def expected_tokens(sets: Sequence[JudgedSet]) -> int:
    """Prompt tokens of asking these pairs in every version, if none comes from the cache: by what the ledger says
    that their labels cost, else by their length."""
    spent = [each.prompt_tokens for found in sets for each in found.judgments if each.prompt_tokens]
    lengths = [
        len(found.candidate_set.query.text + each.passage.title + each.passage.text) / _CHARS_A_TOKEN
        for found in sets
        for each in found.candidate_set.candidates
    ]
    each_costs = float(np.mean(spent or lengths or [0.0]))
    return round(len(lengths) * (1 + len(REWRITES)) * each_costs)


async def ask(core: JudgeCore, sets: Sequence[CandidateSet]) -> dict[str, Any]:
    """Ask every version. `rewrites`: one entry a judge and rewrite, see `_compared`; `judges`: hash -> name;
    `stopped`: why it ended early, or empty; `failed`: the first error of a set that could not be judged."""
    versions: dict[str, list[CandidateSet]] = {"": list(sets)}
    versions |= {name: _rewritten(sets, rewrite) for name, rewrite in REWRITES.items()}
    said: dict[str, dict[tuple[str, str, str], Judgment]] = {name: {} for name in versions}
    problems = {"stopped": "", "failed": ""}
    total = sum(len(each.candidates) for asked in versions.values() for each in asked)
    with step("asking again", total=total, unit="pairs") as asking:
        try:
            for name, asked in versions.items():
                await _answers(core, asked, said[name], problems, asking)
        except BudgetExhausted as error:
            problems["stopped"] = str(error)
    judges = {judge_digest(each.judge): shown_name(each.judge) for each in said[""].values()}
    found = [_compared(hashed, name, said) for hashed in judges for name in REWRITES]
    return {"judges": judges, "rewrites": [each for each in found if each["pairs"] or each["missing"]], **problems}


async def _answers(
    core: JudgeCore,
    asked: Sequence[CandidateSet],
    said: dict[tuple[str, str, str], Judgment],
    problems: dict[str, str],
    asking: Step,
) -> None:
    for part in chunks(asked, _SETS_AT_ONCE):
        for each, answer in zip(part, await core.judge(part), strict=True):
            asking.advance(len(each.candidates))
            if isinstance(answer, QrelayError):
                problems["failed"] = problems["failed"] or f"{each.query.query_id}: {answer}"
                continue
            for judgment in answer.judgments:
                said[judge_digest(judgment.judge), each.query.query_id, judgment.passage_id] = judgment


def _rewritten(sets: Sequence[CandidateSet], rewrite: Callable[[Texts], Texts]) -> list[CandidateSet]:
    """The sets with the passages that the rewrite changes."""
    found = []
    for each in sets:
        changed = [(_texts(each, candidate), candidate) for candidate in each.candidates]
        new = [(rewrite(texts), candidate) for texts, candidate in changed if rewrite(texts) != texts]
        if new:
            query = replace(each.query, text=new[0][0].query)
            candidates = tuple(
                replace(candidate, passage=replace(candidate.passage, title=texts.title, text=texts.text))
                for texts, candidate in new
            )
            found.append(replace(each, query=query, candidates=candidates))
    return found


def _texts(each: CandidateSet, candidate: Candidate) -> Texts:
    return Texts(each.query.text, candidate.passage.title, candidate.passage.text)


def _compared(hashed: str, name: str, said: Mapping[str, Mapping[tuple[str, str, str], Judgment]]) -> dict[str, Any]:
    """`mean_change`: of P(relevant), absolute; `largest`; `flips`: share that crossed RELEVANT; `missing`: pairs that
    one of the two versions has no grade of."""
    keys = [key for key in said[name] if key[0] == hashed and key in said[""]]
    both = [(key[1], _p(said[""][key]), _p(said[name][key])) for key in keys]
    known = [(query, before, after) for query, before, after in both if before is not None and after is not None]
    queries = [query for query, _, _ in known]
    changes = [abs(after - before) for _, before, after in known]
    return {
        "judge": hashed,
        "rewrite": name,
        "pairs": len(known),
        "missing": len(both) - len(known),
        "mean_change": mean_by(changes, queries),
        "largest": max(changes, default=float("nan")),
        "flips": share([(before >= RELEVANT) != (after >= RELEVANT) for _, before, after in known]),
    }


def _p(judgment: Judgment) -> float | None:
    return judgment.outcome.p_relevant if isinstance(judgment.outcome, Graded) else None
