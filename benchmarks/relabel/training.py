"""One bi-encoder a training set, trained alike, and their rankings of the dev part compared by question."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.relabel.plant import MedQuad, read, rows
from qrelay.stats.paired import compare
from qrelay.text import passage_text

MODEL = "all-MiniLM-L6-v2"
TOKENS = 64
"""Of a text: enough to tell answers apart, and few for a processor."""
GROUP = 4
"""Negatives of a question in a step, drawn anew each time, as FlagEmbedding and Tevatron draw a group."""
BATCH = 10
LEARNING_RATE = 5e-5
SEED = 17
SETS = ("clean", "dirty", "cleaned")
CUT = 10


def train(data: Path, out: Path, epochs: int) -> None:
    """Trains what has not been trained yet; measures on dev; prints the comparisons."""
    dev = read(data, "dev")
    measured: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for name in ("", *SETS):
        place = out / f"dev-{name or 'base'}.json"
        if name and not (out / f"{name}.jsonl").exists():
            continue
        if not place.exists():
            model = _model()
            if name:
                _fit(model, list(rows(out / f"{name}.jsonl")), epochs)
            place.write_text(json.dumps(_measures(model, dev)))
        measured[name or "base"] = {key: np.array(each) for key, each in json.loads(place.read_text()).items()}
        print(name or "base", {key: round(float(each.mean()), 4) for key, each in measured[name or "base"].items()})
    for old, new in (("dirty", "cleaned"), ("dirty", "clean"), ("clean", "cleaned")):
        if {old, new} <= measured.keys():
            for test in compare(measured[old], measured[new]):
                print(f"{new} less {old}: {test.measure} {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}),"
                      f" p {test.p_fisher:.4f} (randomisation), {test.wins} won, {test.losses} lost")  # fmt: skip


def _model() -> Any:
    from sentence_transformers import SentenceTransformer

    from qrelay.models.catalogue import resolve

    model = SentenceTransformer(str(resolve(MODEL).path), device="cpu")
    model.max_seq_length = TOKENS
    return model


def _fit(model: Any, examples: list[Mapping[str, Any]], epochs: int) -> None:
    """Contrastive steps over groups (MultipleNegativesRankingLoss); the same order and draws for every set."""
    import torch
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    torch.manual_seed(SEED)
    loss = MultipleNegativesRankingLoss(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    model.train()
    for epoch in range(epochs):
        order = sorted(examples, key=lambda row: random.Random(f"{SEED} {epoch} {row['query_id']}").random())
        for start in range(0, len(order), BATCH):
            columns = list(zip(*(_group(row, epoch) for row in order[start : start + BATCH]), strict=True))
            features = [model.preprocess(list(column)) for column in columns]
            value = loss(features, None)
            value.backward()
            optimiser.step()
            optimiser.zero_grad()
    model.eval()


def _group(row: Mapping[str, Any], epoch: int) -> tuple[str, ...]:
    """The question, its positive and GROUP of its negatives."""
    negatives = sorted(row["negative_passages"], key=lambda each: str(each["docid"]))
    drawn = random.Random(f"{SEED} {epoch} {row['query_id']}").sample(negatives, min(GROUP, len(negatives)))
    drawn += [drawn[0]] * (GROUP - len(drawn))
    passages = [row["positive_passages"][0], *drawn]
    return row["query"], *(passage_text(each["title"], each["text"]) for each in passages)


def _measures(model: Any, dev: MedQuad) -> dict[str, list[float]]:
    """RR@10 and nDCG@10 of each dev question, over the answers of all of them."""
    query_ids = [each for each in dev.queries if dev.gold.get(each)]
    doc_ids = sorted({doc_id for each in query_ids for doc_id in dev.gold[each]})
    texts = [passage_text(passage["title"], passage["text"]) for passage in map(dev.passage, doc_ids)]
    vectors = model.encode(texts, normalize_embeddings=True)
    queries = model.encode([dev.queries[each] for each in query_ids], normalize_embeddings=True)
    found: dict[str, list[float]] = {"RR@10": [], "nDCG@10": []}
    for query_id, scores in zip(query_ids, queries @ vectors.T, strict=True):
        ranked = [doc_ids[place] for place in np.argsort(-scores, kind="stable")[:CUT]]
        hits = [rank for rank, doc_id in enumerate(ranked, 1) if doc_id in dev.gold[query_id]]
        ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(CUT, len(dev.gold[query_id])) + 1))
        found["RR@10"].append(1 / hits[0] if hits else 0.0)
        found["nDCG@10"].append(float(sum(1 / np.log2(rank + 1) for rank in hits) / ideal))
    return found
