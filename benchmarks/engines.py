"""Do the engines agree? The same weights and the same pairs through each, and the rank correlation of their labels.

    python -m benchmarks.engines run --backend llamacpp --out llamacpp.json
    python -m benchmarks.engines run --backend transformers --out transformers.json
    .venv-vllm/bin/python -m benchmarks.engines run --backend vllm --out vllm.json      # after `make test-vllm`
    python -m benchmarks.engines compare llamacpp.json transformers.json vllm.json

llama.cpp computes on the quantised weights of the GGUF, transformers and vLLM on the same weights unpacked to
bfloat16 or float32. Needs ../shared/data/liveqa-med, or --data.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from pathlib import Path

from qrelay.types import Graded, JudgedSet
from services.judge.cache import NoCache
from services.judge.core import load_judge
from services.judge.measure.table import candidate_sets
from services.judge.settings import JudgeSettings
from services.judge.slices import read_beir


def run(arguments: argparse.Namespace) -> None:
    """Judge pairs spread evenly over the collection with one engine and write their expected relevance."""
    data = arguments.data
    every = read_beir(data, data / "queries.dev.jsonl", data / "qrels.dev.tsv")
    pairs = every[:: max(1, len(every) // arguments.pairs)][: arguments.pairs]
    settings = JudgeSettings(backend=arguments.backend, model=arguments.model, strategy=arguments.strategy)
    judge = load_judge(settings, NoCache())
    started = time.perf_counter()
    try:
        judged = asyncio.run(judge.judge(candidate_sets(pairs, {})))
        identity = judge.identity
    finally:
        judge.close()
    seconds = time.perf_counter() - started
    outcomes = [each.outcome for one in judged if isinstance(one, JudgedSet) for each in one.judgments]
    scores = [each.expected_relevance if isinstance(each, Graded) else None for each in outcomes]
    found = {"engine": arguments.backend, "model": identity.fingerprint, "decoding": identity.decoding,
             "strategy": identity.strategy, "labels_per_s": len(scores) / seconds, "scores": scores}  # fmt: skip
    arguments.out.write_text(json.dumps(found))
    print(f"{arguments.backend}: {len(scores)} labels, {len(scores) / seconds:.2f} a second")


def compare(arguments: argparse.Namespace) -> None:
    """Spearman's rank correlation and the largest difference of every two runs."""
    from scipy.stats import spearmanr

    runs = [json.loads(path.read_text()) for path in arguments.files]
    for one, other in itertools.combinations(runs, 2):
        both = [
            (a, b) for a, b in zip(one["scores"], other["scores"], strict=True) if a is not None and b is not None
        ]
        rho = float(spearmanr([a for a, _ in both], [b for _, b in both])[0])
        worst = max(abs(a - b) for a, b in both)
        print(
            f"{one['engine']} and {other['engine']}: rank correlation {rho:.4f}, largest difference {worst:.3f}, "
            f"{len(both)} pairs, {one['strategy']}"
        )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    measure = commands.add_parser("run")
    measure.add_argument("--backend", required=True)
    measure.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    measure.add_argument("--strategy", default="graded")
    measure.add_argument("--pairs", type=int, default=60)
    measure.add_argument("--data", type=Path, default=Path("../shared/data/liveqa-med"))
    measure.add_argument("--out", type=Path, required=True)
    measure.set_defaults(do=run)
    against = commands.add_parser("compare")
    against.add_argument("files", type=Path, nargs="+")
    against.set_defaults(do=compare)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
