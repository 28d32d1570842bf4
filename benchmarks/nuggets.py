"""Do nugget scores and preferences order answers as people do?

    python -m benchmarks.nuggets --data liveqa-med --out nuggets-out \
        [--backend llamacpp] [--model qwen2.5-coder-0.5b-instruct] [--threads 1] [--questions 12] [--texts 6] [--json]

A collection in BEIR's layout with people's grades and reference answers (TREC 2017 LiveQA medical). Of each question
some documents are drawn, one of each grade in turn. Nuggets are made from the reference answers, never from a
document that is scored, and looked for in the documents. Then the documents are graded by the judge, and where two of
one question have the same grade by the judge but not by people, the comparison in both orders says which is better.

Says for each nugget measure: AUC of relevant documents (pooled, and within questions) and Kendall's tau-b within
questions, with 95% intervals from questions drawn anew; for preferences: the share of pairs ordered as people do,
with Wilson's interval, all of them (the mean of both orders decides) and those whose orders agree. A journal in
--out: a killed run continues, and only what is missing is computed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.public import LIVEQA, relevant
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.judging.asking import Asker
from qrelay.judging.engines import make_backend
from qrelay.judging.nuggets.assign import assign
from qrelay.judging.nuggets.create import create
from qrelay.judging.nuggets.records import NuggetList, Text, assignment_line, list_line
from qrelay.judging.nuggets.scores import MEASURES, Scored, scored
from qrelay.judging.preferences import Compared, Group, compare
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.chat import ChatGrade
from qrelay.llm.base import Backend
from qrelay.llm.exchange import GENERATION, TOKEN_LOGPROBS
from qrelay.stats.agreement import auc, auc_within
from qrelay.stats.intervals import cluster_bootstrap, wilson
from qrelay.types import Graded, Missing, Passage


def sample(options: argparse.Namespace) -> dict[str, list[GradedPair]]:
    """query id -> its documents, one of each grade in turn; of questions with reference answers and two grades."""
    pairs = LIVEQA.pairs(options.data, answers=options.data / "answers.dev.jsonl", max_words=options.words)
    held: dict[str, list[GradedPair]] = defaultdict(list)
    for pair in pairs:
        if pair.reference_answers and pair.text.strip():
            held[pair.query_id].append(pair)
    rng = random.Random(options.seed)
    usable = [query_id for query_id, each in sorted(held.items()) if len({pair.grade for pair in each}) > 1]
    return {
        query_id: _in_turn(held[query_id], options.texts, rng) for query_id in rng.sample(usable, options.questions)
    }


def _in_turn(pairs: Sequence[GradedPair], most: int, rng: random.Random) -> list[GradedPair]:
    by_grade: dict[int, list[GradedPair]] = defaultdict(list)
    for pair in rng.sample(pairs, len(pairs)):
        by_grade[pair.grade or 0].append(pair)
    chosen: list[GradedPair] = []
    while len(chosen) < most and any(by_grade.values()):
        for grade in sorted(by_grade, reverse=True):
            chosen += by_grade[grade][:1] if len(chosen) < most else []
            by_grade[grade] = by_grade[grade][1:]
    return chosen


async def nugget_rows(
    asker: Asker, pairs: Sequence[GradedPair], options: argparse.Namespace
) -> tuple[NuggetList, list[tuple[GradedPair, Scored]]]:
    """The nuggets of one question, and each document with its scores; files in options.out show both to people."""
    query_id, query = pairs[0].query_id, pairs[0].query
    references = [("", text) for text in pairs[0].reference_answers]
    nuggets = await create(asker, query_id, query, references, words=options.words)
    texts = [Text(query_id, "", pair.passage_id, pair.title, pair.text) for pair in pairs]
    found = [await assign(asker, text, nuggets, words=options.words) for text in texts]
    with (options.out / "nuggets.jsonl").open("a") as file:
        file.write(list_line(nuggets))
    with (options.out / "assigned.jsonl").open("a") as file:
        file.writelines(map(assignment_line, found))
    return nuggets, [(pair, scored(each)) for pair, each in zip(pairs, found, strict=True)]


def nugget_figures(rows: Sequence[tuple[GradedPair, Scored]]) -> dict[str, Any]:
    """By measure: texts, AUC, AUC and tau-b within questions, with intervals."""
    return {name: _one([(pair, each.values[name]) for pair, each in rows]) for name in MEASURES}


def _one(rows: Sequence[tuple[GradedPair, float | None]]) -> dict[str, Any]:
    known = [(pair, value) for pair, value in rows if value is not None]
    if not known:
        return {"texts": 0, "missing": len(rows)}
    labels = np.array(relevant([pair for pair, _ in known], LIVEQA))
    grades = np.array([pair.grade or 0 for pair, _ in known])
    values = np.array([value for _, value in known])
    groups = np.unique([pair.query_id for pair, _ in known], return_inverse=True)[1]
    pooled = cluster_bootstrap(lambda at: auc(labels[at], values[at]), groups)
    taus = np.array(list(_taus(grades, values, groups)))
    ordered = cluster_bootstrap(lambda at: float(taus[at].mean()), np.arange(len(taus)))
    return {
        "texts": len(known),
        "missing": len(rows) - len(known),
        "auc": pooled.estimate,
        "auc_95": (pooled.low, pooled.high),
        "auc_within": auc_within(labels, values, groups)[0],
        "tau": ordered.estimate,
        "tau_95": (ordered.low, ordered.high),
        "questions": len(taus),
    }


def _taus(grades: Any, values: Any, groups: Any) -> Iterator[float]:
    """tau-b of each question; 0 where all its scores tie, none where all its grades do."""
    for group in np.unique(groups):
        mine = groups == group
        if len(set(grades[mine])) > 1:
            yield float(np.nan_to_num(stats.kendalltau(grades[mine], values[mine]).statistic))


async def preference_rows(
    asker: Asker, pairs: Sequence[GradedPair], options: argparse.Namespace
) -> list[tuple[int, Compared]]:
    """(+1 where people prefer the first, else -1, comparison) of one question's pairs whose judge's grades tie."""
    judge, query = make_strategy("graded", "1-4"), pairs[0].query
    assert isinstance(judge, ChatGrade)
    passages = [Passage(pair.passage_id, pair.passage_id, pair.title, pair.text) for pair in pairs]
    replies = await asker.score([judge.prompt(query, each) for each in passages])
    found = [each if isinstance(each, Missing) else judge.grade(each) for each in replies]
    asked = [
        (Group(pairs[0].query_id, query, a.grade, tuple(passages)), i, j)
        for i, a in enumerate(found)
        for j, b in enumerate(found[:i])
        if isinstance(a, Graded) and isinstance(b, Graded) and a.grade == b.grade and pairs[i].grade != pairs[j].grade
    ]
    done = await compare(asker, [(group, passages[i], passages[j]) for group, i, j in asked], words=options.words)
    better = [1 if (pairs[i].grade or 0) > (pairs[j].grade or 0) else -1 for _, i, j in asked]
    return list(zip(better, done, strict=True))


def preference_figures(rows: Sequence[tuple[int, Compared]]) -> dict[str, Any]:
    """Shares of pairs that are ordered as people order them; the share whose two orders agree."""
    known = [(better, each.p, each.agreed) for better, each in rows if each.p is not None]
    return {
        "pairs": len(known),
        "missing": len(rows) - len(known),
        "agreed": sum(agreed for *_, agreed in known),
        "right_by_mean": _share([(p > 0.5) == (better > 0) for better, p, _ in known]),
        "right_where_agreed": _share([(p > 0.5) == (better > 0) for better, p, agreed in known if agreed]),
    }


def _share(right: Sequence[bool]) -> dict[str, Any] | None:
    if not right:
        return None
    return {"n": len(right), "share": sum(right) / len(right), "95%": wilson(sum(right), len(right))}


async def measured(backend: Backend, options: argparse.Namespace) -> dict[str, Any]:
    """All figures, from the journal where it has the answers; after each question those so far, on standard error."""
    held = sample(options)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("nuggets.jsonl", "assigned.jsonl"):
        (options.out / name).unlink(missing_ok=True)
    lists: list[NuggetList] = []
    rows: list[tuple[GradedPair, Scored]] = []
    compared: list[tuple[int, Compared]] = []
    found: dict[str, Any] = {}
    with Asker(backend, options.out / "journal.jsonl") as asker:
        for pairs in held.values():
            nuggets, own = await nugget_rows(asker, pairs, options)
            lists, rows = [*lists, nuggets], rows + own
            compared += await preference_rows(asker, pairs, options)
            found = _figures(lists, rows, compared)
            print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def _figures(
    lists: Sequence[NuggetList], rows: Sequence[tuple[GradedPair, Scored]], compared: Sequence[tuple[int, Compared]]
) -> dict[str, Any]:
    nuggets = [nugget for each in lists for nugget in each.nuggets]
    return {
        "questions": len(lists),
        "lists_missing": sum(each.missing is not None for each in lists),
        "nuggets": len(nuggets),
        "vital": sum(each.importance == "vital" for each in nuggets),
        "by_measure": nugget_figures(rows),
        "preferences": preference_figures(compared),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backend", default="llamacpp")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--threads", type=int, default=1)
    for name, default in (("questions", 12), ("texts", 6), ("seed", 0), ("words", 120)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    own = {given.backend: {"threads": given.threads}} if given.backend != "fake" else {}
    settings = JudgeSettings(backend=given.backend, model=given.model, **own)
    backend = make_backend(settings, needs=frozenset({GENERATION, TOKEN_LOGPROBS}))
    try:
        found = asyncio.run(measured(backend, given))
    finally:
        backend.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
