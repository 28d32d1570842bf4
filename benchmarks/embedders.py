"""Embedding models side by side, on people's own data: what a question finds, and how cosines agree with grades.

    python -m benchmarks.embedders all-MiniLM-L6-v2 all-mpnet-base-v2 --engine openvino --documents 5000
    python -m benchmarks.embedders path:/models/nomic --dim 256 --keep /tmp/vectors

MedQuAD dev: the questions' answers and the corpus's first others up to --documents, as `benchmarks.encoders` has
them; MRR@5 and nDCG@10 over all questions, relevant is what answers the question. LiveQA-Med dev: AUC of the cosine
of question and answer for people's grades, relevant from 3, over all pairs and as the mean within questions. The
first model is the one that others are compared with. --keep holds vectors, so that an interrupted run goes on. Needs
../shared/data, or --data.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.encoders import read
from qrelay.formats.beir import read_collection
from qrelay.identity import digest
from qrelay.models.embedder import Embedder, TextKind, Vectors, load_embedder
from qrelay.models.engines import ENGINES
from qrelay.stats.agreement import auc, auc_within
from qrelay.stats.paired import compare

BLOCK = 64
RELEVANT_GRADE = 3
DEPTHS = {"MRR@5": 5, "nDCG@10": 10}


class Kept:
    """Encodes once: vectors by the model's fingerprint and the texts, in a folder where there is one."""

    def __init__(self, embedder: Embedder, folder: Path | None) -> None:
        self._embedder, self._folder = embedder, folder
        self.texts, self.cpu_s = 0, 0.0

    def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        parts = [list(texts[at : at + BLOCK]) for at in range(0, len(texts), BLOCK)]
        return np.concatenate([self._part(part, kind) for part in parts])

    def _part(self, texts: list[str], kind: TextKind) -> Vectors:
        path = self._folder and self._folder / f"{digest(self._embedder.fingerprint, kind, *texts)[:32]}.npy"
        if path and path.exists():
            kept: Vectors = np.load(path)
            return kept
        began = time.process_time()
        found = self._embedder.encode(texts, kind)
        self.texts, self.cpu_s = self.texts + len(texts), self.cpu_s + time.process_time() - began
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, found)
        return found


def medquad(kept: Kept, folder: Path, documents: int) -> dict[str, Any]:
    """Each measure, by question."""
    every, questions, relevant = read(folder, "dev")
    wanted = {doc_id for found in relevant.values() for doc_id in found}
    others = islice((each for each in every if each not in wanted), max(0, documents - len(wanted)))
    ids = sorted([*wanted, *others])
    vectors = kept.encode([every[each] for each in ids], "document")
    asked = kept.encode(list(questions.values()), "query")
    ranked = np.argsort(-asked @ vectors.T, axis=1, kind="stable")[:, : max(DEPTHS.values())]
    rows = [
        [ids[place] in relevant[query_id] for place in row] for query_id, row in zip(questions, ranked, strict=True)
    ]
    hits = np.array(rows, float)
    counts = np.array([len(relevant[query_id]) for query_id in questions])
    return {"MRR@5": reciprocal(hits[:, :5]), "nDCG@10": ndcg(hits, counts)}


def reciprocal(hits: Any) -> Any:
    """[queries]: 1 over the rank of the first hit of a row, 0 where there is none."""
    return (hits / np.arange(1, hits.shape[1] + 1)).max(axis=1)


def ndcg(hits: Any, relevant: Any) -> Any:
    """[queries], of binary gains (Järvelin and Kekäläinen 2002)."""
    gains = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    best = np.array([gains[:count].sum() for count in relevant])
    return np.divide(hits @ gains, best, out=np.zeros(len(hits)), where=best > 0)


def liveqa(kept: Kept, folder: Path) -> dict[str, float]:
    """AUC of the cosine, overall and within questions."""
    found = read_collection(folder / "corpus.jsonl.gz", folder / "queries.dev.jsonl", folder / "qrels.dev.tsv")
    texts = dict(zip(found.doc_ids, found.texts, strict=True))
    pairs = [(q, d, grade) for q, grades in found.qrels.items() for d, grade in sorted(grades.items()) if d in texts]
    ids = sorted({doc_id for _, doc_id, _ in pairs})
    answers = dict(zip(ids, kept.encode([texts[each] for each in ids], "document"), strict=True))
    asked = dict(zip(found.queries, kept.encode(list(found.queries.values()), "query"), strict=True))
    labels = [grade >= RELEVANT_GRADE for _, _, grade in pairs]
    cosines = [float(asked[query_id] @ answers[doc_id]) for query_id, doc_id, _ in pairs]
    return {
        "AUC": auc(labels, cosines),
        "AUC within": auc_within(labels, cosines, [query_id for query_id, _, _ in pairs])[0],
        "pairs": len(pairs),
    }


def told(name: str, kept: Kept, found: Mapping[str, Any], agreement: Mapping[str, float]) -> str:
    means = ", ".join(f"{measure} {values.mean():.4f}" for measure, values in found.items())
    spent = f"{1000 * kept.cpu_s / kept.texts:.0f} CPU-ms a text ({kept.texts} texts)" if kept.texts else "all kept"
    questions = len(next(iter(found.values())))
    return (
        f"{name}: {means} ({questions} questions); AUC {agreement['AUC']:.4f}, within questions "
        f"{agreement['AUC within']:.4f} ({agreement['pairs']} pairs); {spent}"
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--engine", choices=ENGINES, default="torch")
    parser.add_argument("--dim", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    first: Mapping[str, Any] = {}
    for name in arguments.models:
        embedder = load_embedder(name, engine=arguments.engine, threads=arguments.threads, dim=arguments.dim)
        kept = Kept(embedder, arguments.keep)
        found = medquad(kept, arguments.data / "medquad", arguments.documents)
        print(told(embedder.fingerprint, kept, found, liveqa(kept, arguments.data / "liveqa-med")), flush=True)
        for each in compare(first, found) if first else []:
            print(f"  {each}", flush=True)
        first = first or found


if __name__ == "__main__":
    main()
