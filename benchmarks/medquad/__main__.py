"""Better retrieval from an LLM judge's labels alone: the whole recipe on MedQuAD, step by step.

    python -m benchmarks.medquad index    --data FOLDER --out WORK    # passages and vectors of the corpus
    python -m benchmarks.medquad queries  --data FOLDER --out WORK --n 600
    python -m benchmarks.medquad label    --out WORK                  # hours; killed, it goes on
    python -m benchmarks.medquad train    --out WORK --data FOLDER    # round1, gold: the same recipe on both labels
    python -m benchmarks.medquad evaluate --out WORK --data FOLDER --split dev
    python -m benchmarks.medquad evaluate --out WORK --data FOLDER --split test --final

FOLDER is MedQuAD in BEIR layout (corpus.jsonl.gz, queries.SPLIT.jsonl.gz, qrels/SPLIT.tsv.gz). Judged are a sample of
the train queries, which no test topic shares, by `contrastive_likelihood` of the 0.5B model against their neighbours
among the train queries: no answer key is read before `train --only gold`, the ceiling. What is chosen is chosen on
dev; test is measured once, with --final. docs/log.md has the figures.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.medquad.gold import gold_labels

HERE = Path(__file__).parent
COLLECTION = "medquad"
SEED = 7


def qrelay(*arguments: str | Path, state: Path | None = None) -> None:
    """A qrelay command; the recipe ends where it fails."""
    environ = {**os.environ, "QRELAY_CONFIG": str(HERE / "qrelay.yaml")}
    if state:
        environ["QRELAY_DATA_DIR"] = str(state)
    command = [sys.executable, "-m", "qrelay.cli.main", *map(str, arguments)]
    if code := subprocess.run(command, env=environ, check=False).returncode:
        raise SystemExit(f"qrelay {arguments[0]} ended with {code}; its output above says why")


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, .gz or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as opened:
        for line in opened:
            yield json.loads(line)


def index(arguments: argparse.Namespace) -> None:
    """Passages of 160 tokens, BM25 and vectors of the base model."""
    corpus, out = arguments.data / "corpus.jsonl.gz", arguments.out / "state" / "index"
    qrelay("index", "build", corpus, "--collection", COLLECTION, "--out", out)


def queries(arguments: argparse.Namespace) -> None:
    """A sample of the train queries, each with its alternatives among all of them."""
    log = list(lines(arguments.data / "queries.train.jsonl.gz"))
    chosen = random.Random(SEED).sample(log, arguments.n)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("log", log), ("sample", chosen)):
        text = "".join(json.dumps({"query_id": row["_id"], "text": row["text"]}) + "\n" for row in rows)
        (arguments.out / f"{name}.jsonl").write_text(text)
    sample, log, found = (arguments.out / f"{name}.jsonl" for name in ("sample", "log", "queries"))
    qrelay("queries", "alternatives", sample, "--log", log, "--out", found)


def label(arguments: argparse.Namespace) -> None:
    """The pipeline over the queries, and what the judge said of every passage."""
    state, out = arguments.out / "state", arguments.out
    up = [sys.executable, "-m", "qrelay.cli.main", "up", "--port-base", "0"]
    environ = {**os.environ, "QRELAY_CONFIG": str(HERE / "qrelay.yaml"), "QRELAY_DATA_DIR": str(state)}
    with subprocess.Popen(up, env=environ) as services:
        try:
            qrelay("feed", out / "queries.jsonl", "--collection", COLLECTION, "--wait", state=state)
        finally:
            services.terminate()
    qrelay("export", "labels", "--collection", COLLECTION, "--out", out / "weak.jsonl", state=state)


def train(arguments: argparse.Namespace) -> None:
    """The same experiment on the judge's labels and on the answer key's, of the same queries."""
    out = arguments.out
    if "gold" in arguments.only:
        gold = gold_labels(out / "weak.jsonl", arguments.data, split="train")
        (out / "gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gold))
    for name in arguments.only:
        data = "gold" if name == "gold" else "weak"
        experiment = "cross_encoder.yaml" if name == "cross_encoder" else "bi_encoder.yaml"
        qrelay("train", "--experiment", HERE / experiment, "--data", out / f"{data}.jsonl", "--out", out / name)


def evaluate(arguments: argparse.Namespace) -> None:
    """Whole documents; base, BM25, and every model that was trained, against the base. A cross-encoder reorders
    BM25's first 100, on a sample of the queries."""
    if arguments.split == "test" and not arguments.final:
        raise SystemExit("test is measured once, when everything is chosen: add --final")
    data, out, split = arguments.data, arguments.out, arguments.split
    models = [name for name in ("round1", "round2", "gold") if (out / name / "model").is_dir()]
    folders = [word for name in models for word in ("--model", str(out / name / "model"))]
    files = ("--corpus", data / "corpus.jsonl.gz", "--queries", data / f"queries.{split}.jsonl.gz",
             "--qrels", data / "qrels" / f"{split}.tsv.gz")  # fmt: skip
    kept = ("--vectors", out / "vectors", "--arithmetic", "bfloat16")
    qrelay("eval", "--model", "all-MiniLM-L6-v2", "--model", "bm25", *folders, *files, *kept,
           "--json", out / f"{split}.json", "--html", out / f"{split}.html")  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("index", "queries", "label", "train", "evaluate"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=600, help="train queries to judge")
    parser.add_argument("--only", nargs="+", default=["round1", "gold", "cross_encoder"])
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--final", action="store_true")
    arguments = parser.parse_args()
    {"index": index, "queries": queries, "label": label, "train": train, "evaluate": evaluate}[arguments.step](
        arguments
    )


if __name__ == "__main__":
    main()
