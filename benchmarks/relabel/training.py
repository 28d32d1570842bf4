"""One bi-encoder a training set, trained alike, and their rankings of the dev part compared by question.

Two ways: the whole model, in steps over groups as FlagEmbedding and Tevatron draw them; or (`head`) a linear layer on
the model's vectors, which stay as they are, over all negatives, in seconds on a processor. The loss is the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.relabel.plant import MedQuad, read, rows
from qrelay.models.catalogue import resolve
from qrelay.stats.paired import compare
from qrelay.text import passage_text

MODEL = "all-MiniLM-L6-v2"
TOKENS = 64
"""Of a text: enough to tell answers apart, and few for a processor."""
GROUP, BATCH, LEARNING_RATE = 4, 10, 5e-5
"""Of the whole model: negatives of a question in a step, drawn anew each epoch; questions of a step."""
HEAD_EPOCHS, HEAD_RATE = 20, 1e-3
SCALE = 20.0
"""Of cosines in the loss, as sentence-transformers has it."""
SEED = 17
SETS = ("dirty", "cleaned", "clean")
CUT = 10
Vectors = np.ndarray[Any, Any]


def train(data: Path, out: Path, epochs: int, *, head: bool) -> None:
    """Trains what has not been trained yet; measures on dev; prints the comparisons."""
    dev, way = read(data, "dev"), "head" if head else "dev"
    measured: dict[str, dict[str, Vectors]] = {}
    for name in ("base", *SETS):
        place = out / f"{way}-{name}.json"
        if name != "base" and not (out / f"{name}.jsonl").exists():
            continue
        if not place.exists():
            examples = [] if name == "base" else list(rows(out / f"{name}.jsonl"))
            found = _head(out, examples, dev) if head else _whole(examples, epochs, dev)
            place.write_text(json.dumps(found))
        measured[name] = {key: np.array(each) for key, each in json.loads(place.read_text()).items()}
        print(name, {key: round(float(each.mean()), 4) for key, each in measured[name].items()})
    for old, new in (("base", "clean"), ("dirty", "cleaned"), ("dirty", "clean"), ("clean", "cleaned")):
        if {old, new} <= measured.keys():
            for test in compare(measured[old], measured[new]):
                print(
                    f"{new} less {old}: {test.measure} {test.difference:+.4f} ({test.low:+.4f} to {test.high:+.4f}),"
                    f" p {test.p_fisher:.4f} (randomisation), {test.wins} won, {test.losses} lost"
                )


def _model() -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(resolve(MODEL).path), device="cpu")
    model.max_seq_length = TOKENS
    return model


def _whole(examples: list[Mapping[str, Any]], epochs: int, dev: MedQuad) -> dict[str, list[float]]:
    """Every weight is trained; the same order and draws for every set."""
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    torch.manual_seed(SEED)
    model = _model()
    loss = MultipleNegativesRankingLoss(model, scale=SCALE)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    model.train()
    for epoch in range(epochs):
        order = sorted(examples, key=lambda row: random.Random(f"{SEED} {epoch} {row['query_id']}").random())
        for start in range(0, len(order), BATCH):
            columns = zip(*(_group(row, epoch) for row in order[start : start + BATCH]), strict=True)
            loss([model.preprocess(list(column)) for column in columns], None).backward()
            optimiser.step()
            optimiser.zero_grad()
    model.eval()
    queries, documents, _ = _texts(dev)
    return _measures(dev, *(model.encode(texts, normalize_embeddings=True) for texts in (queries, documents)))


def _group(row: Mapping[str, Any], epoch: int) -> tuple[str, ...]:
    """The question, its positive and GROUP of its negatives."""
    negatives = sorted(row["negative_passages"], key=lambda each: str(each["docid"]))
    drawn = random.Random(f"{SEED} {epoch} {row['query_id']}").sample(negatives, min(GROUP, len(negatives)))
    drawn += [drawn[0]] * (GROUP - len(drawn))
    return row["query"], *map(_text, [row["positive_passages"][0], *drawn])


def _head(out: Path, examples: list[Mapping[str, Any]], dev: MedQuad) -> dict[str, list[float]]:
    """A layer is trained, all questions in each step: a question's positive against its own negatives, and against
    the positives of the other questions."""
    torch.manual_seed(SEED)
    layer = torch.nn.Linear(384, 384, bias=False)
    torch.nn.init.eye_(layer.weight)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=HEAD_RATE)
    at = _vectors(out, dev)
    queries = torch.stack([at[row["query"]] for row in examples]) if examples else torch.empty(0)
    positives = [at[_text(row["positive_passages"][0])] for row in examples]
    negatives = [torch.stack([at[_text(each)] for each in row["negative_passages"]]) for row in examples]
    for _ in range(HEAD_EPOCHS if examples else 0):
        asked, answers = _unit(layer(queries)), _unit(layer(torch.stack(positives)))
        own = [asked[place] @ _unit(layer(each)).T for place, each in enumerate(negatives)]
        scores = [torch.cat([asked[place] @ answers.T, each]) * SCALE for place, each in enumerate(own)]
        missed = [torch.logsumexp(each, 0) - each[place] for place, each in enumerate(scores)]
        torch.stack(missed).mean().backward()  # type: ignore[no-untyped-call]  # torch's own
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        sides = [_unit(layer(torch.stack([at[text] for text in texts]))).numpy() for texts in _texts(dev)[:2]]
    return _measures(dev, *sides)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _vectors(out: Path, dev: MedQuad) -> dict[str, torch.Tensor]:
    """text -> the model's own vector, of everything that is trained on or measured; kept in a file."""
    place = out / "vectors.pt"
    if place.exists():
        return dict(torch.load(place, weights_only=True))
    texts = {text: None for found in _texts(dev)[:2] for text in found}
    for row in (row for name in ("clean", "dirty") for row in rows(out / f"{name}.jsonl")):
        texts |= dict.fromkeys([row["query"], *map(_text, row["positive_passages"] + row["negative_passages"])])
    found = dict(zip(texts, _model().encode(list(texts), convert_to_tensor=True), strict=True))
    torch.save({text: vector.clone() for text, vector in found.items()}, place)
    return found


def _text(passage: Mapping[str, Any]) -> str:
    return passage_text(passage["title"], passage["text"])


def _texts(dev: MedQuad) -> tuple[list[str], list[str], list[str]]:
    """Texts of the dev questions, and of their answers, which are the corpus; and the answers' ids."""
    asked = [each for each in dev.queries if dev.gold.get(each)]
    doc_ids = sorted({doc_id for each in asked for doc_id in dev.gold[each]})
    return [dev.queries[each] for each in asked], [_text(dev.passage(each)) for each in doc_ids], doc_ids


def _measures(dev: MedQuad, queries: Vectors, documents: Vectors) -> dict[str, list[float]]:
    """RR@10 and nDCG@10 of each dev question."""
    doc_ids = _texts(dev)[2]
    found: dict[str, list[float]] = {f"RR@{CUT}": [], f"nDCG@{CUT}": []}
    asked = [each for each in dev.queries if dev.gold.get(each)]
    for query_id, scores in zip(asked, queries @ documents.T, strict=True):
        ranked = [doc_ids[place] for place in np.argsort(-scores, kind="stable")[:CUT]]
        hits = [rank for rank, doc_id in enumerate(ranked, 1) if doc_id in dev.gold[query_id]]
        ideal = sum(1 / np.log2(rank + 1) for rank in range(1, min(CUT, len(dev.gold[query_id])) + 1))
        found[f"RR@{CUT}"].append(1 / hits[0] if hits else 0.0)
        found[f"nDCG@{CUT}"].append(float(sum(1 / np.log2(rank + 1) for rank in hits) / ideal))
    return found
