"""Better retrieval from an LLM judge's labels alone: the whole recipe on MedQuAD, step by step.

    python -m benchmarks.medquad index    --data FOLDER --out WORK --round 1    # passages, BM25, vectors
    python -m benchmarks.medquad label    --data FOLDER --out WORK --round 1    # hours; killed, it goes on
    python -m benchmarks.medquad train    --data FOLDER --out WORK --round 1
    … the same three with --round 2, which retrieves with the model of round 1 and learns from the labels of both …
    python -m benchmarks.medquad ceiling  --data FOLDER --out WORK --round 1    # the same recipe on the answer key
    python -m benchmarks.medquad reranker --data FOLDER --out WORK --round 2
    python -m benchmarks.medquad evaluate --data FOLDER --out WORK --split dev
    python -m benchmarks.medquad evaluate --data FOLDER --out WORK --split test --final

FOLDER is MedQuAD in BEIR layout (corpus.jsonl.gz, queries.SPLIT.jsonl.gz, qrels/SPLIT.tsv.gz). A round judges
further train queries, which no test topic shares, by `contrastive_likelihood` of the 0.5B model against their
neighbours among the train queries; what the log itself says (contrast.py) is the labels' prior, and the only label of
as many further queries. No answer key is read before `ceiling`. What is chosen is chosen on dev; test is
measured once, with --final. docs/log.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.medquad.contrast import Contrast
from benchmarks.medquad.distil import distilled
from benchmarks.medquad.gold import gold_labels, lines
from qrelay.formats.lines import text_lines
from qrelay.models.embedder import load_embedder

HERE = Path(__file__).parent
COLLECTION = "medquad"
BASE = "all-MiniLM-L6-v2"
SEED = 7
JUDGED = (400, 600)
"""Train queries that each round judges."""
DISTILLED = 1800
"""Train queries whose candidates the cross-encoder learns from before it sees a judge's label."""
UNJUDGED = (400, 1200)
"""Train queries without a judge's label from which each round's model learns too."""
RERANKED = 200
"""Test queries of the cross-encoder: 100 pairs each."""


class Recipe:
    """One working folder: roundR/ with its state, queries, labels and runs."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.data: Path = arguments.data
        self.out: Path = arguments.out
        self.round: int = arguments.round
        self.split: str = arguments.split
        self.final: bool = arguments.final

    def folder(self, number: int) -> Path:
        """What the round made."""
        return self.out / f"round{number}"

    @property
    def embedder(self) -> str:
        """The model that the round retrieves with."""
        return f"path:{self.folder(self.round - 1) / 'bi_encoder' / 'model'}" if self.round > 1 else BASE

    @property
    def labels(self) -> list[Path]:
        """The labels of all rounds so far."""
        return [self.folder(number) / "weak.jsonl" for number in range(1, self.round + 1)]

    def environ(self) -> dict[str, str]:
        """The round's settings."""
        return {
            **os.environ,
            "QRELAY_CONFIG": str(HERE / "qrelay.yaml"),
            "QRELAY_DATA_DIR": str(self.folder(self.round) / "state"),
            "QRELAY_RETRIEVER__EMBEDDER": self.embedder,
        }

    def qrelay(self, *arguments: str | Path) -> None:
        """A qrelay command; the recipe ends where it fails."""
        command = [sys.executable, "-m", "qrelay.cli.main", *map(str, arguments)]
        if code := subprocess.run(command, env=self.environ(), check=False).returncode:
            raise SystemExit(f"qrelay {arguments[0]} ended with {code}; its output above says why")

    def index(self) -> None:
        """Passages of 160 tokens, BM25 and the vectors of the round's model."""
        out = self.folder(self.round) / "state" / "index"
        self.qrelay("index", "build", self.data / "corpus.jsonl.gz", "--collection", COLLECTION, "--out", out,
                    "--embedder", self.embedder)  # fmt: skip

    def label(self) -> None:
        """The pipeline over the round's queries, and what the judge said of every passage."""
        home = self.folder(self.round)
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "queries.jsonl").exists():
            self._queries(home)
        self.qrelay("up", "--detach", "--port-base", "0")
        try:
            self.qrelay("feed", home / "queries.jsonl", "--collection", COLLECTION, "--wait")
        finally:
            self.qrelay("down")
        self.qrelay("export", "labels", "--collection", COLLECTION, "--out", home / "weak.jsonl", "--unmeasured")

    def _queries(self, home: Path) -> None:
        """The round's share of the train queries in a random order, each with its alternatives among all of them."""
        mixed = self._mixed()
        _write(home / "log.jsonl", mixed)
        before = sum(JUDGED[: self.round - 1])
        _write(home / "sample.jsonl", mixed[before : before + JUDGED[self.round - 1]])
        self.qrelay("queries", "alternatives", home / "sample.jsonl", "--log", home / "log.jsonl",
                    "--out", home / "queries.jsonl")  # fmt: skip

    def _mixed(self) -> list[dict[str, Any]]:
        """The train queries in a random order."""
        log = list(lines(self.data / "queries.train.jsonl.gz"))
        return random.Random(SEED).sample(log, len(log))

    def train(self) -> None:
        """The base model on the judge's labels of all rounds, the contrast of the round's retriever being the prior,
        and on the contrast alone of queries that were not judged."""
        home, mixed = self.folder(self.round), self._mixed()
        contrast = Contrast(home / "state" / "index" / COLLECTION, load_embedder(self.embedder, engine="openvino"),
                            [row["text"] for row in mixed])  # fmt: skip
        judged = [row for path in self.labels for row in lines(path)]
        start = sum(JUDGED[: self.round])
        unjudged = mixed[start : start + UNJUDGED[self.round - 1]]
        with (home / "contrast.jsonl").open("w") as file:
            for line in chain(contrast.judged(judged), contrast.unjudged(unjudged)):
                file.write(json.dumps(line) + "\n")
        self._train("bi_encoder.yaml", [home / "contrast.jsonl"], home / "bi_encoder")

    def ceiling(self) -> None:
        """The same on the answer key's labels of the same passages."""
        home = self.folder(self.round)
        found = [row for weak in self.labels for row in gold_labels(weak, self.data, split="train")]
        (home / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        self._train("bi_encoder.yaml", [home / "gold.jsonl"], home / "gold", "prior=''")

    def reranker(self) -> None:
        """A cross-encoder from the base model's body: first what the round's retriever believes of the candidates of
        1,800 train queries, judged or not, then the judge's labels."""
        home = self.folder(self.round)
        with (home / "distilled.jsonl").open("w") as file:
            for line in distilled(home / "state" / "index", self.embedder, COLLECTION, self._mixed()[:DISTILLED]):
                file.write(json.dumps(line) + "\n")
        stages = [
            {"name": "distilled", "data": [str(home / "distilled.jsonl")], "epochs": 1},
            {"name": "judged", "epochs": 1, "learning_rate": 3.0e-5},
        ]
        self._train("cross_encoder.yaml", self.labels, home / "cross_encoder", f"stages={json.dumps(stages)}")

    def _train(self, experiment: str, labels: list[Path], out: Path, *overrides: str) -> None:
        data = [word for path in labels for word in ("--data", str(path))]
        changed = [word for each in overrides for word in ("--set", each)]
        self.qrelay("train", "--experiment", HERE / experiment, *data, *changed, "--out", out)

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
        _write(sample, random.Random(SEED).sample(asking, min(RERANKED, len(asking))))
        asked = {row["_id"] for row in lines(sample)}
        some = self.out / f"{self.split}-sample.tsv"
        some.write_text("query-id\tcorpus-id\tscore\n" + "".join(_rows(qrels, asked)))
        rerankers = [*self._models("cross_encoder"), "bm25", BASE, *self._models("bi_encoder")]
        few: list[str | Path] = [*files, "--queries", sample, "--qrels", some, "--max-length", "256"]
        self._evaluate(rerankers, few, self.out / f"{self.split}-reranked")

    def _models(self, kind: str) -> list[str]:
        return [str(path) for path in sorted(self.out.glob(f"round*/{kind}/model"))]

    def _evaluate(self, models: list[str], files: list[str | Path], out: Path) -> None:
        named = [word for model in models for word in ("--model", model)]
        self.qrelay(
            "eval", *named, *files, "--json-file", out.with_suffix(".json"), "--html", out.with_suffix(".html")
        )


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps({"_id": row["_id"], "text": row["text"]}) + "\n" for row in rows))


def _rows(qrels: Path, asked: set[str]) -> list[str]:
    return [f"{row}\n" for _, row in text_lines(qrels) if row.split("\t")[0] in asked]


def main() -> None:
    """See the module."""
    steps = ("index", "label", "train", "ceiling", "reranker", "evaluate")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=steps)
    parser.add_argument("--data", type=Path, required=True, help="MedQuAD in BEIR layout")
    parser.add_argument("--out", type=Path, required=True, help="working folder")
    parser.add_argument("--round", type=int, default=1, choices=range(1, len(JUDGED) + 1))
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--final", action="store_true")
    arguments = parser.parse_args()
    getattr(Recipe(arguments), arguments.step)()


if __name__ == "__main__":
    main()
