"""Models as the gate measures them, and evaluations that are kept: <registry>/evaluations/<key>.json.

A subject is a model with the way it answers. Where the cross-encoder's slot has nothing yet, what is to be beaten is
the bi-encoder that serves now, ordering the same 100 documents of BM25.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qrelay.files import write_atomic
from qrelay.identity import digest
from qrelay.models.catalogue import resolve
from qrelay.models.encoding import PAIR_TOKENS, pair_length, space
from qrelay.models.registry import (
    BI_ENCODER,
    CROSS_ENCODER,
    Registry,
    ServedVersion,
    collection_of,
    kind_of,
    slot_of,
)
from qrelay.parsing import json_document

if TYPE_CHECKING:
    from qrelay.formats.beir import Run
    from qrelay.training.evaluation.evaluate import Evaluation
    from qrelay.training.evaluation.frozen import FrozenSet

SEARCH: Final = "exact search"
RERANK: Final = "cross-encoder over BM25's top 100"
BI_RERANK: Final = "bi-encoder over BM25's top 100"
_FORMAT: Final = "1"


@dataclass(frozen=True, slots=True)
class Subject:
    """name: for people. fingerprint: of its bytes. how: one of the three ways above. pair_tokens: at which a
    cross-encoder's pairs are cut; 0: it is none."""

    name: str
    fingerprint: str
    path: Path
    how: str
    pair_tokens: int = 0


def of_version(registry: Registry, version: str, slot: str) -> Subject:
    """A version of the registry."""
    served = ServedVersion(version, slot, registry.model_dir(version))
    if kind_of(slot) == BI_ENCODER:
        return Subject(version, served.fingerprint, served.path, SEARCH)
    return Subject(version, served.fingerprint, served.path, RERANK, pair_length(served.path))


def of_model(name: str, how: str, most: int = 0) -> Subject:
    """A model of the catalogue or `path:FOLDER`. most: tokens of a cross-encoder's pair; 0: its own length.

    Raises:
        ModelError: it is not there.
    """
    found = resolve(name)
    if how == RERANK:
        return Subject(found.name, f"{found.name}@{found.revision}", found.path, how, pair_length(found.path, most))
    return Subject(found.name, space(found), found.path, how)


def serving(registry: Registry, slot: str, configured: Mapping[str, str], pair_tokens: int = 0) -> Subject:
    """What serves in the slot now. configured: kind -> the model where nothing is promoted; empty: none. pair_tokens:
    the most that the service gives a configured cross-encoder; 0: the model's own.

    Raises:
        ModelError: the configured model is not there.
    """
    if served := registry.serving(slot):
        return of_version(registry, served.version, slot)
    if kind_of(slot) == BI_ENCODER:
        return of_model(configured[BI_ENCODER], SEARCH)
    if configured.get(CROSS_ENCODER):
        return of_model(configured[CROSS_ENCODER], RERANK, pair_tokens)
    below = serving(registry, slot_of(BI_ENCODER, collection_of(slot)), configured)
    return replace(below, name=f"{below.name} over BM25", how=BI_RERANK)


def evaluated(subject: Subject, frozen: FrozenSet, metric: str, keep: Path) -> Evaluation:
    """The subject's values on the set; from `keep` (a folder) where they were computed before. Evaluations of the
    same bytes on the same set, read to the same length, are the same, so nothing in it ever goes stale.

    Raises:
        ModelError: the model cannot be loaded.
        InputError: no such measure.
    """
    from qrelay.training.evaluation.evaluate import from_json
    from qrelay.training.evaluation.measures import STANDARD

    measures = STANDARD if metric in STANDARD else (*STANDARD, metric)
    length = () if subject.pair_tokens in (0, PAIR_TOKENS) else (f"{subject.pair_tokens} tokens",)
    key = digest(_FORMAT, subject.fingerprint, subject.how, frozen.sha256, *measures, *length)
    path = keep / f"{key[:32]}.json"
    if path.exists():
        return from_json(json_document(path.read_bytes()))
    found = _evaluate(subject, frozen, measures)
    document = {**found.as_json(), "fingerprint": subject.fingerprint, "how": subject.how, "set": frozen.name}
    write_atomic(path, json.dumps(document))
    return found


def _evaluate(subject: Subject, frozen: FrozenSet, measures: tuple[str, ...]) -> Evaluation:
    from qrelay.training.evaluation.answering import Options
    from qrelay.training.evaluation.evaluate import evaluate

    if subject.how == BI_RERANK:
        return evaluate(frozen.collection, subject.name, _reranked(subject, frozen), measures)
    kind = BI_ENCODER if subject.how == SEARCH else CROSS_ENCODER
    options = Options(max_length=subject.pair_tokens)
    return frozen.evaluate(subject.path, kind, options=options, measures=measures)  # type: ignore[arg-type]


def _reranked(subject: Subject, frozen: FrozenSet) -> Run:
    """BM25's documents by the bi-encoder's cosine."""
    from qrelay.models.embedder import load_embedder
    from qrelay.training.evaluation.systems import bm25_run

    collection = frozen.collection
    first = bm25_run(collection)
    found = sorted({doc_id for scores in first.values() for doc_id in scores})
    embedder = load_embedder(f"path:{subject.path}")
    vectors = dict(zip(found, embedder.encode([collection.text_of[each] for each in found], "document"), strict=True))
    queries = embedder.encode(list(collection.queries.values()), "query")
    return {
        query_id: {doc_id: float(vectors[doc_id] @ vector) for doc_id in first[query_id]}
        for query_id, vector in zip(collection.queries, queries, strict=True)
    }
