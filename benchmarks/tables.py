"""Tables of public collections: labels from the judgment cache alone, and scores by kept vectors."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.public import Public, halves
from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.formats.annotated_pairs import GradedPair, corpus_texts
from qrelay.formats.beir import Collection
from qrelay.judging.cache import JudgmentCache, NoCache
from qrelay.judging.judge import Judge
from qrelay.judging.panel import Panel
from qrelay.judging.qualification.stages import Scores, StageOptions, score_pairs
from qrelay.judging.qualification.table import Table, measure
from qrelay.judging.strategies.base import Strategy
from qrelay.judging.strategies.consensus import Consensus
from qrelay.judging.strategies.query_likelihood import QueryLikelihood
from qrelay.llm.base import Local, Weights
from qrelay.llm.embedder import EmbedderBackend
from qrelay.llm.exchange import Continuation, TargetLogprobs
from qrelay.models.embedder import Embedder, SentenceTransformerEmbedder, TextKind, Vectors, load_embedder
from qrelay.models.engines import EncoderEngine
from qrelay.stats.agreement import auc
from qrelay.stats.intervals import PairedTest, paired_bootstrap
from qrelay.training.evaluation.embedding import corpus_vectors
from qrelay.types import DENSE, JudgeIdentity, Missing

MINILM, MPNET = "all-MiniLM-L6-v2", "all-mpnet-base-v2"
BOTH_DENSE: Final = (DENSE, f"{DENSE}:{MPNET}")
JUDGES: Final = {"0.5B": "qwen2.5-coder-0.5b-instruct", "1.5B": "qwen2.5-coder-1.5b-instruct"}
CONSENSUS: Final = "consensus"


class Recorded(Local):
    """A judge's engine that computes nothing: what the cache does not hold is missing."""

    def __init__(self, identity: JudgeIdentity, asks: str) -> None:
        self.weights = Weights(identity.model, identity.revision, identity.quantisation)
        self._decodings = {asks: identity.decoding}

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """None."""
        return [BackendUnavailable("not in the cache")] * len(continuations)

    def close(self) -> None:
        """Nothing to free."""


class Kept(SentenceTransformerEmbedder):
    """An embedder whose vectors of documents are kept in a folder, and those that it gave once in memory."""

    def __init__(self, name: str, folder: Path, engine: EncoderEngine = "torch") -> None:
        found = load_embedder(name, engine=engine)
        assert isinstance(found, SentenceTransformerEmbedder)
        super().__init__(found.model, found.name, found.fingerprint)
        self._folder = folder
        self._rows: dict[str, Any] = {}

    def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        """See the class."""
        if kind == "query":
            return super().encode(texts, kind)
        if not self._rows.keys() >= {*texts}:
            whole = Collection(list(map(str, range(len(texts)))), list(texts), {}, {})
            plain = SentenceTransformerEmbedder(self.model, self.name, self.fingerprint)
            self._rows |= zip(texts, corpus_vectors(whole, plain, keep=self._folder), strict=True)
        return np.array([self._rows[text] for text in texts])


def of_cache(
    cache: JudgmentCache,
    pairs: Sequence[GradedPair],
    name: str,
    model: str,
    strategy: Strategy,
    *,
    stages: Scores | None = None,
    relevant_from: int = 1,
) -> Iterator[Table]:
    """A table of each judge of this model and prompt that the cache knows, by this name; what it lacks is missing."""
    for known in cache.stats().judges:
        if (known.judge.model, known.judge.prompt_hash) == (model, strategy.spec.prompt_hash):
            panel = Panel({name: Judge(Recorded(known.judge, strategy.spec.asks), strategy, cache)}, cache)
            yield asyncio.run(measure(panel, pairs, stages or {}, relevant_from))


def recorded(
    cache: JudgmentCache, pairs: Sequence[GradedPair], stages: Scores, relevant_from: int
) -> tuple[Table, dict[str, int]]:
    """The table of the judges all of whose labels of these pairs are in the cache, and how many labels of each judge
    are there. Of several engines' labels of one model those that are most."""
    whole = Table(tuple(pairs), relevant_from, {}, {}, stages)
    there = dict.fromkeys(JUDGES, 0)
    for name, model in JUDGES.items():
        for table in of_cache(
            cache, pairs, name, model, QueryLikelihood(), stages=stages, relevant_from=relevant_from
        ):
            outcomes = [each.outcome for each in table.labels[name]]
            lacking = sum(isinstance(each, Missing) and each.reason == "unavailable" for each in outcomes)
            there[name] = max(there[name], len(pairs) - lacking)
            whole = whole if lacking else joined(whole, table)
    return whole, there


def joined(table: Table, other: Table) -> Table:
    """The table with the labels of another one of the same pairs."""
    return replace(table, labels={**table.labels, **other.labels}, judges={**table.judges, **other.judges})


def part(table: Table, rows: Sequence[int]) -> Table:
    """These rows, as a table of their own."""
    at = np.array(rows, np.int64)
    labels = {name: tuple(column[row] for row in rows) for name, column in table.labels.items()}
    stages = {name: scores[at] for name, scores in table.stages.items()}
    return replace(table, pairs=tuple(table.pairs[row] for row in rows), labels=labels, stages=stages)


def agreeing(table: Table, embedder: Embedder) -> Table:
    """The table with the labels of the strategy `consensus`, which costs no more than the passages' vectors."""
    panel = Panel({CONSENSUS: Judge(EmbedderBackend(embedder), Consensus(), NoCache())}, NoCache())
    return joined(table, asyncio.run(measure(panel, table.pairs, table.stages, table.relevant_from)))


def differences(table: Table, one: NDArray[Any], other: NDArray[Any]) -> dict[str, PairedTest]:
    """AUC of one score [rows] less the other's, over all pairs and as the mean within queries that have both kinds;
    queries drawn anew, p one-sided, of the first being no better."""
    y, queries = table.relevant, table.queries
    own = [rows for each in np.unique(queries) if 0 < y[rows := np.flatnonzero(queries == each)].sum() < len(rows)]
    found = {"auc": paired_bootstrap(lambda i: auc(y[i], one[i]), lambda i: auc(y[i], other[i]), queries)}
    if own:
        a, b = (np.array([auc(y[rows], score[rows]) for rows in own]) for score in (one, other))
        places = np.arange(len(own))
        found["within"] = paired_bootstrap(lambda i: float(a[i].mean()), lambda i: float(b[i].mean()), places)
    return found


def table_of(
    public: Public, folder: Path, cache: JudgmentCache, load: Callable[[str], Embedder], half: str = ""
) -> tuple[Table, dict[str, int]]:
    """One collection's table, as `recorded`. load: from an embedder's name to the model."""
    name, pairs = public.title, public.pairs(folder)
    embedders = StageOptions((MINILM, MPNET), corpus_texts(folder), load)
    stages = score_pairs(pairs, embedders, lambda what: print(f"{name}: {what}", file=sys.stderr, flush=True))
    if half:
        rows = halves(pairs)["ab".index(half)]
        pairs, stages = [pairs[row] for row in rows], {system: scores[rows] for system, scores in stages.items()}
    table, there = recorded(cache, pairs, stages, public.relevant_from)
    return agreeing(replace(table, collection=name), load(MPNET)), there
