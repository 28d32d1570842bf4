"""What is measured: two collections whose texts' vectors are computed once, agreement, and rankings by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.relabel.plant import MedQuad
from benchmarks.tables import MINILM, Kept, differences, joined, part
from benchmarks.utility.head import Vectors
from benchmarks.utility.pairs import beginning
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.formats.beir import Collection
from qrelay.judging.qualification.systems import evaluate
from qrelay.judging.qualification.table import Table
from qrelay.text import passage_text
from qrelay.types import DENSE

MEASURES: Final = ("RR@5", "nDCG@10", "R@5")
Columns = Mapping[str, NDArray[np.float64]]


def medquad_dev(data: MedQuad, half: int) -> Collection:
    """The questions at even (half 0) or odd (1) places; the documents are the answers of both halves."""
    doc_ids = sorted({doc_id for answers in data.gold.values() for doc_id in answers})
    rows = [data.documents[each] for each in doc_ids]
    asked = sorted(data.gold)[half::2]
    texts = [passage_text(row["title"], beginning(row["text"])) for row in rows]
    qrels = {each: dict.fromkeys(data.gold[each], 1) for each in asked}
    return Collection(doc_ids, texts, {each: data.queries[each] for each in asked}, qrels)


def liveqa(pairs: Sequence[GradedPair]) -> Collection:
    """The graded answers of all questions; grades from 0, relevant from 2 (people's 3)."""
    texts = {pair.passage_id: passage_text(pair.title, pair.text) for pair in pairs}
    qrels: dict[str, dict[str, int]] = {}
    for pair in pairs:
        qrels.setdefault(pair.query_id, {})[pair.passage_id] = (pair.grade or 1) - 1
    asked = {pair.query_id: pair.query for pair in pairs}
    kept = {each for each, grades in qrels.items() if max(grades.values()) >= 2}
    return Collection(list(texts), list(texts.values()), {q: t for q, t in asked.items() if q in kept},
                      {q: grades for q, grades in qrels.items() if q in kept}, relevant_from=2)  # fmt: skip


def texts_of(pairs: Sequence[GradedPair]) -> list[str]:
    """The passages as models read them."""
    return [passage_text(pair.title, pair.text) for pair in pairs]


def vectors(folder: Path, groups: Sequence[Sequence[str]]) -> dict[str, NDArray[np.float32]]:
    """text -> vector; each group is kept in a file. The model has no prompts, so questions are texts like others."""
    model = Kept(MINILM, folder, "openvino")
    found: dict[str, NDArray[np.float32]] = {}
    for group in groups:
        once = list(dict.fromkeys(group))
        found |= dict(zip(once, model.encode(once, "document"), strict=True))
    return found


def cosines(pairs: Sequence[GradedPair], known: Vectors) -> NDArray[np.float64]:
    """The untrained model's score of each pair."""
    both = zip(pairs, texts_of(pairs), strict=True)
    return np.array([float(known[pair.query] @ known[text]) for pair, text in both])


def together(tables: Mapping[str, Table], dense: NDArray[np.float64]) -> Table:
    """The pairs that all of them label, with the retriever's score; kind -> its table, over the same pairs."""
    labelled = np.all([np.isfinite(table.column(kind)) for kind, table in tables.items()], axis=0)
    whole = reduce(joined, tables.values())
    return part(replace(whole, stages={DENSE: dense}), np.flatnonzero(labelled).tolist())


def agreement(table: Table) -> dict[str, Any]:
    """Each input alone and with the retriever's score: `qrelay judge eval`'s figures; and each kind of label less the
    retriever, and less each other, in AUC, paired by question."""
    kinds = list(table.labels)
    fused = {f"{DENSE} + {kind}": (DENSE, kind) for kind in kinds}
    found = evaluate(table, {**fused, f"{DENSE} + {' + '.join(kinds)}": (DENSE, *kinds)})
    shown = ("auc", "auc_ci", "auc_within_query", "auc_within_query_n", "kappa_binary", "kappa_binary_ci")
    systems = {name: {key: system.metrics[key] for key in shown} for name, system in found.systems.items()}
    compared = (("answer", "query"), ("answer", DENSE), ("query", DENSE))
    tests = {}
    for one, other in compared:
        between = differences(table, table.column(one), table.column(other))
        tests[f"{one} - {other}"] = {name: [t.difference, t.low, t.high, t.p_value] for name, t in between.items()}
    return {
        "pairs": len(table.pairs),
        "questions": len(set(table.queries)),
        "relevant": int(table.relevant.sum()),
        "systems": systems,
        "differences": tests,
        "against dense": found.comparisons,
    }
