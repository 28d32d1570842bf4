"""Better retrieval without a human label: the whole recipe on MedQuAD, step by step.

    python -m benchmarks.medquad index    --data FOLDER --out WORK    # passages, BM25, vectors
    python -m benchmarks.medquad lists    --data FOLDER --out WORK    # the query log matched with the collection
    python -m benchmarks.medquad train    --data FOLDER --out WORK
    python -m benchmarks.medquad ceiling  --data FOLDER --out WORK    # the same recipe on the answer key
    python -m benchmarks.medquad reranker --data FOLDER --out WORK
    python -m benchmarks.medquad evaluate --data FOLDER --out WORK --split dev
    python -m benchmarks.medquad evaluate --data FOLDER --out WORK --split test --final

FOLDER is MedQuAD in BEIR layout (corpus.jsonl.gz, queries.SPLIT.jsonl.gz, qrels/SPLIT.tsv.gz). The train queries
share no topic with test. matching.py matches them all with the collection; the lists whose first document is sure are
labels as they are, and no judge is asked. No answer key is read before `ceiling`. What is chosen is chosen on dev;
test is measured once, with --final. docs/log.md has the figures, and those of former recipes, where a judge labelled.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.medquad.distil import distilled
from benchmarks.medquad.gold import gold_labels, lines
from benchmarks.medquad.matching import Matching, surety, unjudged
from qrelay.formats.lines import text_lines
from qrelay.models.embedder import load_embedder

HERE = Path(__file__).parent
COLLECTION = "medquad"
BASE = "all-MiniLM-L6-v2"
SEED = 7
SURE = 0.7
"""The least probability of a list's first document that a model learns from."""
DISTILLED = 1800
"""Train queries whose candidates the cross-encoder learns from before it sees a label."""
RERANKED = 200
"""Test queries of the cross-encoder: 100 pairs each."""


class Recipe:
    """One working folder with its state, lists, labels and models."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.data: Path = arguments.data
        self.out: Path = arguments.out
        self.split: str = arguments.split
        self.final: bool = arguments.final
        self.lists_file = self.out / "lists.jsonl"
        self.labels_file = self.out / "labels.jsonl"

    def environ(self) -> dict[str, str]:
        """The settings of its commands."""
        return {
            **os.environ,
            "QRELAY_DATA_DIR": str(self.out / "state"),
            "QRELAY_RETRIEVER__EMBEDDER": BASE,
            "QRELAY_RETRIEVER__EMBEDDER_ENGINE": "openvino",
        }

    def qrelay(self, *arguments: str | Path) -> None:
        """A qrelay command; the recipe ends where it fails."""
        command = [sys.executable, "-m", "qrelay.cli.main", *map(str, arguments)]
        if code := subprocess.run(command, env=self.environ(), check=False).returncode:
            raise SystemExit(f"qrelay {arguments[0]} ended with {code}; its output above says why")

    def index(self) -> None:
        """Passages of 160 tokens, BM25 and the base model's vectors."""
        self._index(self.out / "state" / "index", BASE)

    def _index(self, out: Path, embedder: str) -> None:
        self.qrelay("index", "build", self.data / "corpus.jsonl.gz", "--collection", COLLECTION, "--out", out,
                    "--embedder", embedder)  # fmt: skip

    def lists(self) -> None:
        """Of each train query its best passages by matching, the queries in a random order."""
        embedder = load_embedder(BASE, engine="openvino")
        _write(self.lists_file, Matching(self.out / "state" / "index" / COLLECTION, embedder, self._mixed()).lists())

    def _mixed(self) -> list[dict[str, Any]]:
        """The train queries in a random order."""
        log = list(lines(self.data / "queries.train.jsonl.gz"))
        return random.Random(SEED).sample(log, len(log))

    def train(self) -> None:
        """The base model on the lists that are sure."""
        sure = (line for line in lines(self.lists_file) if surety(line) >= SURE)
        _write(self.labels_file, map(unjudged, sure))
        self._train("bi_encoder.yaml", self.labels_file, self.out / "bi_encoder")

    def ceiling(self) -> None:
        """The same on the answer key's labels of the same passages."""
        gold = self.out / "gold.jsonl"
        _write(gold, gold_labels(self.labels_file, self.data, split="train"))
        self._train("bi_encoder.yaml", gold, self.out / "gold", "prior=''")

    def reranker(self) -> None:
        """A cross-encoder from the base model's body: first what the trained retriever believes of the candidates of
        1,800 train queries, then the labels of the lists."""
        model, index = f"path:{self.out / 'bi_encoder' / 'model'}", self.out / "trained-index"
        self._index(index, model)
        believed = self.out / "distilled.jsonl"
        _write(believed, distilled(index, model, COLLECTION, self._mixed()[:DISTILLED]))
        stages = json.dumps([
            {"name": "distilled", "data": [str(believed)], "epochs": 1},
            {"name": "matched", "epochs": 1, "learning_rate": 3.0e-5},
        ])  # fmt: skip
        self._train("cross_encoder.yaml", self.labels_file, self.out / "cross_encoder", f"stages={stages}")

    def _train(self, experiment: str, labels: Path, out: Path, *overrides: str) -> None:
        changed = [word for each in overrides for word in ("--set", each)]
        self.qrelay("train", "--experiment", HERE / experiment, "--data", labels, *changed, "--out", out)

    def evaluate(self) -> None:
        """Whole documents: the base, BM25 and every model that was trained; the rerankers over BM25's first 100."""
        if self.split == "test" and not self.final:
            raise SystemExit("test is measured once, when everything is chosen: add --final")
        queries, qrels = self.data / f"queries.{self.split}.jsonl.gz", self.data / "qrels" / f"{self.split}.tsv.gz"
        files: list[str | Path] = [
            "--corpus",
            self.data / "corpus.jsonl.gz",
            "--vectors",
            self.out / "vectors",
            "--arithmetic",
            "bfloat16",
        ]
        retrievers = [BASE, "bm25", *self._models("bi_encoder"), *self._models("gold")]
        self._evaluate(retrievers, [*files, "--queries", queries, "--qrels", qrels], self.out / self.split)
        sample = self.out / f"{self.split}-sample.jsonl"
        asking = list(lines(queries))
        _write(sample, map(_query, random.Random(SEED).sample(asking, min(RERANKED, len(asking)))))
        asked = {row["_id"] for row in lines(sample)}
        some = self.out / f"{self.split}-sample.tsv"
        some.write_text("query-id\tcorpus-id\tscore\n" + "".join(_rows(qrels, asked)))
        rerankers = [*self._models("cross_encoder"), "bm25", BASE, *self._models("bi_encoder")]
        few: list[str | Path] = [*files, "--queries", sample, "--qrels", some, "--max-length", "256"]
        self._evaluate(rerankers, few, self.out / f"{self.split}-reranked")

    def _models(self, kind: str) -> list[str]:
        return [str(path) for path in sorted(self.out.glob(f"{kind}/model"))]

    def _evaluate(self, models: list[str], files: list[str | Path], out: Path) -> None:
        named = [word for model in models for word in ("--model", model)]
        self.qrelay(
            "eval", *named, *files, "--json-file", out.with_suffix(".json"), "--html", out.with_suffix(".html")
        )


def _query(row: dict[str, Any]) -> dict[str, Any]:
    return {"_id": row["_id"], "text": row["text"]}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _rows(qrels: Path, asked: set[str]) -> list[str]:
    return [f"{row}\n" for _, row in text_lines(qrels) if row.split("\t")[0] in asked]


def main() -> None:
    """See the module."""
    steps = ("index", "lists", "train", "ceiling", "reranker", "evaluate")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=steps)
    parser.add_argument("--data", type=Path, required=True, help="MedQuAD in BEIR layout")
    parser.add_argument("--out", type=Path, required=True, help="working folder")
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--final", action="store_true")
    arguments = parser.parse_args()
    getattr(Recipe(arguments), arguments.step)()


if __name__ == "__main__":
    main()
