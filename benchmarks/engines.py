"""Do the engines agree? The same weights and the same pairs through each, and the rank correlation of their labels.

    python -m benchmarks.engines run --backend llamacpp --out llamacpp.json
    python -m benchmarks.engines run --backend transformers --out transformers.json
    .venv-vllm/bin/python -m benchmarks.engines run --backend vllm --out vllm.json      # after `make test-vllm`
    python -m benchmarks.engines compare llamacpp.json transformers.json vllm.json
    python -m benchmarks.engines turns transformers openvino --pairs 60     # in one process, a query by turns

`turns` prints labels/s of both, their ratio, AUC and rank correlation; `run` the process's peak memory (VmHWM) too.
llama.cpp computes on the quantised weights of the GGUF, transformers and vLLM on the same weights unpacked to
bfloat16 or float32. Needs ../shared/data/liveqa-med, or --data.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from qrelay.formats.annotated_pairs import read_beir
from qrelay.judging.cache import NoCache
from qrelay.judging.calibration import raw_score
from qrelay.judging.judge import Judge
from qrelay.judging.load import load_judge
from qrelay.judging.qualification.table import candidate_sets
from qrelay.judging.settings import JudgeSettings
from qrelay.stats.agreement import auc
from qrelay.types import CandidateSet, Graded, JudgedSet

RELEVANT = 3
"""Of LiveQA-Med's grades 1 to 4."""


def sample(pairs: list[Any], number: int) -> list[Any]:
    """So many pairs by chance, always the same, half of them relevant where there are so many; in the collection's
    order, a query's pairs together."""
    chance = random.Random(7)
    relevant = [place for place, pair in enumerate(pairs) if (pair.grade or 0) >= RELEVANT]
    others = [place for place, pair in enumerate(pairs) if (pair.grade or 0) < RELEVANT]
    half = min(number // 2, len(relevant))
    return [pairs[place] for place in sorted(chance.sample(relevant, half) + chance.sample(others, number - half))]


def run(arguments: argparse.Namespace) -> None:
    """Judge pairs of the collection with one engine and write their expected relevance."""
    data = arguments.data
    every = read_beir(data, data / "queries.dev.jsonl", data / "qrels.dev.tsv")
    pairs = sample(every, arguments.pairs)
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    found = {
        "engine": arguments.backend,
        "peak_gb": peak,
        "model": identity.fingerprint,
        "decoding": identity.decoding,
        "strategy": identity.strategy,
        "labels_per_s": len(scores) / seconds,
        "scores": scores,
    }
    arguments.out.write_text(json.dumps(found))
    print(f"{arguments.backend}: {len(scores)} labels, {len(scores) / seconds:.2f} a second, peak {peak:.2f} GB")


def turns(arguments: argparse.Namespace) -> None:
    """Two engines in one process on the same pairs, a query by turns, so that a slow minute hits both."""
    data = arguments.data
    every = read_beir(data, data / "queries.dev.jsonl", data / "qrels.dev.tsv")
    pairs = sample(every, arguments.pairs)
    names = arguments.backends
    settings = {
        name: JudgeSettings(backend=name, model=arguments.model, strategy=arguments.strategy) for name in names
    }
    judges = {name: load_judge(own, NoCache()) for name, own in settings.items()}
    found = asyncio.run(_by_turns(judges, candidate_sets(pairs, {})))
    relevant = np.array([(pair.grade or 0) >= RELEVANT for pair in pairs])
    for name, (seconds, tokens, scores) in found.items():
        print(f"{name:<13} {len(scores) / seconds:6.2f} labels/s  {tokens / seconds:6.0f} tokens/s  "
              f"AUC {auc(relevant, scores):.4f}  {judges[name].identity.decoding}")  # fmt: skip
    one, other = (found[name] for name in names)
    rho = float(spearmanr(one[2], other[2])[0])
    print(f"{names[1]} is {one[0] / other[0]:.2f} times as fast as {names[0]}; rank correlation {rho:.4f}; "
          f"{len(pairs)} pairs, {int(relevant.sum())} relevant")  # fmt: skip


async def _by_turns(judges: dict[str, Judge], sets: list[CandidateSet]) -> dict[str, tuple[float, int, list[float]]]:
    """Seconds, prompt tokens and scores of each judge."""
    seconds, tokens = dict.fromkeys(judges, 0.0), dict.fromkeys(judges, 0)
    scores: dict[str, list[float]] = {name: [] for name in judges}
    for judge in judges.values():
        await judge.judge(sets[:1])  # lays out memory
    for number, asked in enumerate(sets):
        for name in sorted(judges, reverse=bool(number % 2)):
            began = time.perf_counter()
            (judged,) = await judges[name].judge([asked])
            seconds[name] += time.perf_counter() - began
            assert isinstance(judged, JudgedSet), judged
            tokens[name] += sum(each.prompt_tokens for each in judged.judgments)
            scores[name] += [raw_score(each.outcome) for each in judged.judgments if isinstance(each.outcome, Graded)]
    return {name: (seconds[name], tokens[name], scores[name]) for name in judges}


def compare(arguments: argparse.Namespace) -> None:
    """Spearman's rank correlation and the largest difference of every two runs."""
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
    side = commands.add_parser("turns")
    side.add_argument("backends", nargs=2)
    side.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    side.add_argument("--strategy", default="query_likelihood")
    side.add_argument("--pairs", type=int, default=60)
    side.add_argument("--data", type=Path, default=Path("../shared/data/liveqa-med"))
    side.set_defaults(do=turns)
    against = commands.add_parser("compare")
    against.add_argument("files", type=Path, nargs="+")
    against.set_defaults(do=compare)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
