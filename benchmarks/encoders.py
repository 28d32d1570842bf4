"""The encoders' engines side by side: the library's own call in float32, and OpenVINO in 8 bits, by turns.

    python -m benchmarks.encoders embedder --documents 5000     # speed, cosine, MRR@5 over MedQuAD dev queries
    python -m benchmarks.encoders cross-encoder --pairs 400     # a cross-encoder is trained first: 2 minutes

The documents are the queries' answers and others up to --documents. Times are CPU seconds of this process, so that a
busy machine does not decide; quality is on all queries. Needs ../shared/data/medquad, or --data.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from qrelay.formats.beir import read_collection
from qrelay.models.catalogue import resolve
from qrelay.models.records import ResolvedModel

MODEL = "all-MiniLM-L6-v2"
SEED = 7


def read(folder: Path, split: str) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Documents and queries by id, and the relevant documents of each query."""
    found = read_collection(
        folder / "corpus.jsonl.gz", folder / f"queries.{split}.jsonl.gz", folder / "qrels" / f"{split}.tsv.gz"
    )
    relevant = {
        query_id: {doc_id for doc_id, grade in found.qrels[query_id].items() if grade > 0}
        for query_id in found.queries
    }
    return dict(zip(found.doc_ids, found.texts, strict=True)), found.queries, relevant


def by_turns(
    first: Callable[[Any], Any], second: Callable[[Any], Any], parts: list[Any]
) -> tuple[list[Any], list[Any], list[float]]:
    """Both answers to every part, and the ratio of CPU seconds (first / second) of each."""
    one: list[Any] = []
    other: list[Any] = []
    ratios: list[float] = []
    first(parts[0]), second(parts[0])  # lays out memory
    for number, part in enumerate(parts):
        spent = {}
        for name, call, answers in sorted([("1", first, one), ("2", second, other)], reverse=bool(number % 2)):
            began = time.process_time()
            answers.append(call(part))
            spent[name] = time.process_time() - began
        ratios.append(spent["1"] / spent["2"])
    return one, other, ratios


def told(ratios: list[float]) -> str:
    """The median and the middle half."""
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return f"{median:.2f} times as fast ({low:.2f} to {high:.2f} over {len(ratios)} turns)"


def mrr(vectors: np.ndarray, asked: np.ndarray, ids: list[str], relevant: list[set[str]], depth: int = 5) -> float:
    """Of the first relevant document within `depth`, over all queries."""
    ranked = np.argsort(-asked @ vectors.T, axis=1, kind="stable")[:, :depth]
    reciprocal = [
        next((1 / rank for rank, place in enumerate(row, 1) if ids[place] in wanted), 0.0)
        for row, wanted in zip(ranked, relevant, strict=True)
    ]
    return float(np.mean(reciprocal))


def embedder(arguments: argparse.Namespace) -> None:
    """MRR@5 of both over the same documents, and the speed while they embed them."""
    from sentence_transformers import SentenceTransformer

    from qrelay.models.embedder import load_embedder

    every, texts, relevant = read(arguments.data, "dev")
    asked = list(texts)
    wanted = {doc_id for query_id in asked for doc_id in relevant[query_id]}
    ids = [
        *wanted,
        *islice((each for each in every if each not in wanted), max(0, arguments.documents - len(wanted))),
    ]
    random.Random(SEED).shuffle(ids)
    own = load_embedder(MODEL, engine="openvino")
    bare = SentenceTransformer(str(resolve(MODEL).path), device="cpu")
    bare.max_seq_length = 256

    def library(part: list[str]) -> Any:
        return bare.encode(part, normalize_embeddings=True)

    parts = [[every[each] for each in ids[start : start + 100]] for start in range(0, len(ids), 100)]
    *both, ratios = by_turns(library, partial(own.encode, kind="document"), parts)
    one, other = (np.concatenate(each) for each in both)
    questions = [texts[each] for each in asked]
    golds = [relevant[each] for each in asked]
    cosine = (one * other).sum(1)
    print(f"{len(ids)} documents: openvino is {told(ratios)}; cosine {cosine.mean():.4f} (min {cosine.min():.4f})")
    print(f"MRR@5 of {len(asked)} queries: {mrr(one, library(questions), ids, golds):.4f} with the library's encode, "
          f"{mrr(other, own.encode(questions, 'query'), ids, golds):.4f} with openvino")  # fmt: skip


def cross_encoder(arguments: argparse.Namespace) -> None:
    """Rank correlation of both on the same pairs, and the speed while they score them."""
    from sentence_transformers import CrossEncoder

    from qrelay.models.openvino_encoders import use_openvino

    every, texts, relevant = read(arguments.data, "train")
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = trained(every, texts, relevant, chance, Path(folder))
        bare, own = (CrossEncoder(str(path), device="cpu", max_length=256) for _ in range(2))
        use_openvino(own, ResolvedModel(path, "trained here", str(time.time_ns()), "float32"), pairs=True, threads=0)
    _, texts, relevant = read(arguments.data, "dev")
    per_query = 20
    asked = chance.sample(sorted(relevant), arguments.pairs // per_query)
    ids = sorted(every)
    parts = []
    for query_id in asked:
        found = [*sorted(relevant[query_id]), *chance.sample(ids, per_query)][:per_query]
        parts.append([(texts[query_id], every[each]) for each in found])
    one, other, ratios = by_turns(bare.predict, own.predict, parts)
    within = np.mean([spearmanr(a, b)[0] for a, b in zip(one, other, strict=True)])
    overall = spearmanr(np.concatenate(one), np.concatenate(other))[0]
    print(f"{len(asked) * per_query} pairs: openvino is {told(ratios)}; rank correlation {overall:.4f}, "
          f"within queries {within:.4f}")  # fmt: skip


def trained(
    every: dict[str, str], texts: dict[str, str], relevant: dict[str, set[str]], chance: random.Random, folder: Path
) -> Path:
    """A cross-encoder that tells answers from others, of MiniLM's weights: some hundred steps."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(SEED)
    model = CrossEncoder(str(resolve(MODEL).path), num_labels=1, device="cpu", max_length=128)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-5)
    ids = sorted(every)
    for _ in range(150):
        rows = []
        for query_id in chance.sample(sorted(relevant), 8):
            rows += [(texts[query_id], every[chance.choice(sorted(relevant[query_id]))], 1.0)]
            rows += [(texts[query_id], every[chance.choice(ids)], 0.0)]
        features = model.preprocess([(query, text) for query, text, _ in rows])
        scores = model(features)["scores"].view(-1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor([row[2] for row in rows]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    model.save_pretrained(str(folder))
    return folder


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, do in (("embedder", embedder), ("cross-encoder", cross_encoder)):
        each = commands.add_parser(name)
        each.add_argument("--data", type=Path, default=Path("../shared/data/medquad"))
        each.add_argument("--documents", type=int, default=5000)
        each.add_argument("--pairs", type=int, default=400)
        each.set_defaults(do=do)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
