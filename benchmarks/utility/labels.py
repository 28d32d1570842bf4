"""Labels of the same pairs, one kind beside the other, in the format of `qrelay export labels`.

answer   how much likelier the passage makes the reference answer (`answer_nll`)
query    how much likelier it makes the question (`query_likelihood`)
key      what people, or the collection's answer key, say
selected whether the passage was of use beside the others of its list (`utility`); measured, but not trained on

A gain in nats says little by itself: the tokens of an answer gain less than those of a question. So the labels of a
kind are divided by their mean standard deviation within a question, and one temperature serves all kinds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import of_cache
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.judging.cache import JudgmentCache, open_cache
from qrelay.judging.engines import make_backend
from qrelay.judging.judge import Judge
from qrelay.judging.load import load_panel
from qrelay.judging.panel import Panel
from qrelay.judging.qualification.table import Table, measure
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies.answer_nll import AnswerNll
from qrelay.judging.strategies.query_likelihood import QueryLikelihood
from qrelay.llm.exchange import PROMPT_LOGPROBS

STRATEGIES: Final[Mapping[str, type[AnswerNll] | type[QueryLikelihood]]] = {
    "answer": AnswerNll, "query": QueryLikelihood
}  # fmt: skip
KEY: Final = "key"
NEAR_BEST: Final = 0.8
"""A passage is positive where its label is at least this share of its question's best."""
Labels = NDArray[np.float64]
"""One a pair: nats a token gained, or the grade."""


@contextmanager
def labellers(model: str, cache: Path, kinds: Sequence[str] = tuple(STRATEGIES)) -> Iterator[Panel]:
    """The judges on one engine and one thread. Every question here has references, so `answer_nll` writes no answer
    and the engine need not generate."""
    held = open_cache(str(cache))
    settings = JudgeSettings(backend="openvino", model=model, strategy="query_likelihood", openvino={"threads": 1})
    backend = make_backend(settings, needs=frozenset({PROMPT_LOGPROBS}))
    panel = Panel({kind: Judge(backend, strategy_of(kind), held) for kind in kinds}, held)
    try:
        yield panel
    finally:
        panel.close()


def selected(model: str, cache: Path, pairs: Sequence[GradedPair], told: Callable[[int], None]) -> Table:
    """The listwise judge's table, by llama.cpp, which can generate; what it could not read is missing."""
    settings = JudgeSettings(backend="llamacpp", model=model, strategy="utility", cache=str(cache))
    panel = load_panel(settings)
    try:
        return asyncio.run(measure(panel, pairs, {}, 1, told))
    finally:
        panel.close()


def strategy_of(kind: str) -> AnswerNll | QueryLikelihood:
    """What makes the labels. With references `answer_nll` reads nothing of the list: of one that the cache holds
    in part only the rest is asked."""
    found = STRATEGIES[kind]()
    found.spec = replace(found.spec, listwise=False)
    return found


def label(panel: Panel, pairs: Sequence[GradedPair], told: Callable[[int], None] = lambda _: None) -> None:
    """Fills the cache. Raises QrelayError, as `measure`."""
    asyncio.run(measure(panel, pairs, {}, 1, told))


def kept(path: Path | str, pairs: Sequence[GradedPair], kind: str, model: str, relevant_from: int = 1) -> Table:
    """`recorded` of the cache there."""
    with closing(open_cache(str(path))) as cache:
        return recorded(cache, pairs, kind, model, relevant_from)


def recorded(
    cache: JudgmentCache, pairs: Sequence[GradedPair], kind: str, model: str, relevant_from: int = 1
) -> Table:
    """The table of what the cache holds; nan where it holds nothing. Of several engines' labels the most."""
    tables = list(of_cache(cache, pairs, kind, model, strategy_of(kind), relevant_from=relevant_from))
    if not tables:
        raise SystemExit(f"the cache holds no {kind} labels of {model}: label first")
    return max(tables, key=lambda table: int(np.isfinite(table.column(kind)).sum()))


def lines(pairs: Sequence[GradedPair], labels: Labels) -> list[dict[str, Any]]:
    """A line a question, of its pairs that have a label."""
    rows: dict[str, list[int]] = {}
    for row in np.flatnonzero(np.isfinite(labels)).tolist():
        rows.setdefault(pairs[row].query_id, []).append(row)
    spread = float(np.mean([labels[held].std() for held in rows.values()]))
    return [_line([pairs[row] for row in held], labels[held] / spread) for held in rows.values()]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSONL."""
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), "utf8")


def _line(pairs: Sequence[GradedPair], labels: Labels) -> dict[str, Any]:
    best = labels.max()
    near = (labels >= NEAR_BEST * best) & (best > 0)
    told = [_told(*each) for each in zip(pairs, labels.tolist(), near.tolist(), strict=True)]
    return {"query_id": pairs[0].query_id, "query": pairs[0].query, "passages": told}


def _told(pair: GradedPair, value: float, positive: bool) -> dict[str, Any]:
    """`answer_nll` is what the passage takes off, so it is the lower the better."""
    role = "positive" if positive else "negative"
    return {"passage_id": pair.passage_id, "title": pair.title, "text": pair.text, "answer_nll": -value,
            "p_relevant": float(positive), "role": role}  # fmt: skip
