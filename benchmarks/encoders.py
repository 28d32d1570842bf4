"""The encoders' engines side by side: the library's own call in float32, and OpenVINO in 8 bits, by turns.

    python -m benchmarks.encoders embedder --documents 5000     # speed, cosine, MRR@5 over MedQuAD dev queries
    python -m benchmarks.encoders cross-encoder --pairs 400     # a cross-encoder is trained first: 2 minutes
    python -m benchmarks.encoders batches --shape 6x384         # the reranker's batches beside the library's predict
    python -m benchmarks.encoders cascade --shape 12x384 --small 2x128,6x384    # beside the large model alone
    python -m benchmarks.encoders beside --shape 2x128          # tokens of one call while another's are computed

Shapes are layers and width of models with random weights, which take the time of trained ones; their pairs are dev
queries with passages as an index cuts them. The last measures seconds, the others CPU seconds.

The documents are the queries' answers and others up to --documents. Times are CPU seconds of this process, so that a
busy machine does not decide; quality is on all queries. Needs ../shared/data/medquad, or --data.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.references.turns import Timer, median_interval, order_of
from qrelay.formats.beir import read_collection
from qrelay.models.catalogue import resolve
from qrelay.models.records import ResolvedModel
from qrelay.services.reranker.reranker import load_reranker
from qrelay.services.reranker.scorers import CrossEncoderScorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import BI_ENCODER, DENSE, Candidate, CandidateSet, Passage, Query, Score

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
    first: Callable[[Any], Any], second: Callable[[Any], Any], parts: list[Any], clock: str = "cpu"
) -> tuple[list[Any], list[Any], list[float]]:
    """Both answers to every part, and the ratio of seconds (first / second) of each; of processor time by default."""
    ways, timer = {"first": first, "second": second}, Timer()
    answers: dict[str, list[Any]] = {name: [] for name in ways}
    first(parts[0]), second(parts[0])  # lays out memory
    for number, part in enumerate(parts):
        for name in order_of(list(ways), number):
            with timer.timed(name):
                answers[name].append(ways[name](part))
    return answers["first"], answers["second"], timer.ratios("first", "second", clock)


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


def shaped(shape: str, folder: Path) -> str:
    """A cross-encoder with random weights, so many layers and so wide, and MiniLM's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    layers, width = map(int, shape.split("x"))
    torch.manual_seed(SEED)
    config = BertConfig(num_hidden_layers=layers, hidden_size=width, intermediate_size=4 * width, num_labels=1,
                        num_attention_heads=max(2, width // 32), initializer_range=0.1)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder / shape)
    AutoTokenizer.from_pretrained(str(resolve(MODEL).path)).save_pretrained(folder / shape)
    return f"path:{folder / shape}"


def cut_sets(data: Path, queries: int, passages: int) -> list[CandidateSet]:
    """Dev queries, each with passages by chance, cut as an index does it; their dense scores are chance too."""
    from qrelay.index.build import STRIDE_TOKENS, WINDOW_TOKENS
    from qrelay.models.embedder import load_embedder

    every, texts, _ = read(data, "dev")
    chance, embedder = random.Random(SEED), load_embedder(MODEL)
    found = [window for doc_id in chance.sample(sorted(every), 500)
             for window in embedder.windows(every[doc_id], WINDOW_TOKENS, STRIDE_TOKENS)]  # fmt: skip
    return [
        CandidateSet(
            Query(query_id, texts[query_id], "medquad"),
            tuple(Candidate(Passage(str(n), str(n), "", each), (Score(DENSE, chance.random(), n + 1),))
                  for n, each in enumerate(chance.sample(found, passages))),
            "cut",
        )
        for query_id in chance.sample(sorted(texts), queries)
    ]  # fmt: skip


def interval(ratios: list[float]) -> str:
    """The median, its 95 % interval, and every turn's."""
    low, high = median_interval(ratios)
    turns = " ".join(f"{each:.2f}" for each in ratios)
    return f"{np.median(ratios):.3f} ({low:.3f} to {high:.3f}; turns {turns})"


def batched(arguments: argparse.Namespace) -> None:
    """The scorer beside `CrossEncoder.predict`: one query in hand, and several."""
    from sentence_transformers import CrossEncoder

    with tempfile.TemporaryDirectory() as folder:
        path = shaped(arguments.shape, Path(folder))
        own = CrossEncoderScorer(path, max_length=384, batch_pairs=32, threads=1)
        bare = CrossEncoder(path.removeprefix("path:"), device="cpu", max_length=384)
    for at_once in (1, arguments.queries):
        sets = cut_sets(arguments.data, at_once * arguments.turns, arguments.passages)
        parts = [sets[n : n + at_once] for n in range(0, len(sets), at_once)]

        def library(part: list[CandidateSet]) -> Any:
            pairs = [(each.query.text, c.passage.text) for each in part for c in each.candidates]
            return bare.predict(pairs, show_progress_bar=False)

        one, other, ratios = by_turns(library, own.score, parts)
        apart = max(float(np.abs(a - np.concatenate(b)).max()) for a, b in zip(one, other, strict=True))
        print(f"{arguments.shape}, {at_once} queries of {arguments.passages} in hand: predict takes "
              f"{interval(ratios)} times the CPU; scores within {apart:.1e}", flush=True)  # fmt: skip


def cascaded(arguments: argparse.Namespace) -> None:
    """The large model alone beside a cascade that drops half of each set."""
    sets = cut_sets(arguments.data, arguments.queries * arguments.turns, arguments.passages)
    parts = [sets[n : n + arguments.queries] for n in range(0, len(sets), arguments.queries)]
    with tempfile.TemporaryDirectory() as folder:
        settings = RerankerSettings(cross_encoder=shaped(arguments.shape, Path(folder)), threads=1, registry_poll_s=0)
        large = load_reranker(settings)
        for first in (BI_ENCODER, *arguments.small.split(",")):
            named = BI_ENCODER if first == BI_ENCODER else shaped(first, Path(folder))
            cascade = RerankerSettings(**{**settings.model_dump(), "cascade": {"first": named}})
            _, _, ratios = by_turns(large.rerank, load_reranker(cascade).rerank, parts)
            print(f"{arguments.shape} alone takes {interval(ratios)} times the CPU of {first} before it", flush=True)


def beside(arguments: argparse.Namespace) -> None:
    """Two calls at a time, tokens and computing under one lock and under one each: wall-clock seconds."""
    sets, lock = cut_sets(arguments.data, 4 * arguments.turns, arguments.passages), Lock()
    parts = [sets[n : n + 4] for n in range(0, len(sets), 4)]
    with tempfile.TemporaryDirectory() as folder:
        scorer = CrossEncoderScorer(shaped(arguments.shape, Path(folder)), max_length=384, batch_pairs=32, threads=1)
    with ThreadPoolExecutor(2) as threads:

        def score(held: Any, part: list[CandidateSet]) -> list[Any]:
            def one(each: CandidateSet) -> Any:
                with held:
                    return scorer.score([each])

            return list(threads.map(one, part))

        _, _, ratios = by_turns(partial(score, lock), partial(score, nullcontext()), parts, "wall")
    print(f"{arguments.shape}: one lock takes {interval(ratios)} times the seconds of two")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    commands_of = {"embedder": embedder, "cross-encoder": cross_encoder, "batches": batched, "cascade": cascaded,
                   "beside": beside}  # fmt: skip
    for name, do in commands_of.items():
        each = commands.add_parser(name)
        each.add_argument("--data", type=Path, default=Path("../shared/data/medquad"))
        each.add_argument("--documents", type=int, default=5000)
        each.add_argument("--pairs", type=int, default=400)
        each.add_argument("--shape", default="6x384")
        each.add_argument("--small", default="2x128,6x384", help="shapes of a cascade's first")
        each.add_argument("--queries", type=int, default=8, help="in hand")
        each.add_argument("--passages", type=int, default=20, help="of a query")
        each.add_argument("--turns", type=int, default=7)
        each.set_defaults(do=do)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
