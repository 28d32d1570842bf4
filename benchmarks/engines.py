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
import os
import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from scipy.stats import spearmanr

from benchmarks.judge import by_turns, ours
from benchmarks.public import LIVEQA, relevant
from qrelay.bench.probe import peak_mib
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.judging.cache import NoCache
from qrelay.judging.judge import Judge
from qrelay.judging.load import load_judge
from qrelay.judging.qualification.table import candidate_sets
from qrelay.judging.settings import JudgeSettings
from qrelay.types import Graded, JudgedSet


def sample(pairs: Sequence[GradedPair], number: int) -> list[GradedPair]:
    """So many pairs by chance, always the same, half of them relevant where there are so many; in the collection's
    order, a query's pairs together."""
    chance, places = random.Random(7), range(len(pairs))
    good = relevant(pairs, LIVEQA)
    half = min(number // 2, sum(good))
    chosen = chance.sample([n for n in places if good[n]], half)
    return [pairs[n] for n in sorted(chosen + chance.sample([n for n in places if not good[n]], number - half))]


def judge_of(backend: str, arguments: argparse.Namespace) -> Judge:
    """The engine's judge."""
    settings = JudgeSettings(backend=backend, model=arguments.model, strategy=arguments.strategy)
    return load_judge(settings, NoCache())


def run(arguments: argparse.Namespace) -> None:
    """Judge pairs of the collection with one engine and write their expected relevance."""
    sets = candidate_sets(sample(LIVEQA.pairs(arguments.data), arguments.pairs), {})
    judge = judge_of(arguments.backend, arguments)
    started = time.perf_counter()
    try:
        judged = asyncio.run(judge.judge(sets))
        identity = judge.identity
    finally:
        judge.close()
    seconds = time.perf_counter() - started
    outcomes = [each.outcome for one in judged if isinstance(one, JudgedSet) for each in one.judgments]
    scores = [each.expected_relevance if isinstance(each, Graded) else None for each in outcomes]
    peak = peak_mib(os.getpid()) * 2**20 / 1e9
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
    """Two engines in one process on the same pairs."""
    pairs = sample(LIVEQA.pairs(arguments.data), arguments.pairs)
    one, other = arguments.backends
    judges = {name: judge_of(name, arguments) for name in (one, other)}
    timer, said = asyncio.run(by_turns({name: partial(ours, judge) for name, judge in judges.items()}, pairs))
    rho = float(spearmanr(said[one].scores, said[other].scores)[0])
    ratio = timer.total(one) / timer.total(other)
    print(f"{other} is {ratio:.2f} times as fast as {one}; rank correlation {rho:.4f}; {len(pairs)} pairs, "
          f"{sum(relevant(pairs, LIVEQA))} relevant")  # fmt: skip


def compare(arguments: argparse.Namespace) -> None:
    """Spearman's rank correlation and the largest difference of every two runs."""
    runs = [json.loads(path.read_text()) for path in arguments.files]
    for one, other in itertools.combinations(runs, 2):
        every = zip(one["scores"], other["scores"], strict=True)
        both = [(a, b) for a, b in every if a is not None and b is not None]
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
    for name, do, strategy in (("run", run, "graded"), ("turns", turns, "query_likelihood")):
        each = commands.add_parser(name)
        each.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
        each.add_argument("--strategy", default=strategy)
        each.add_argument("--pairs", type=int, default=60)
        each.add_argument("--data", type=Path, default=Path("../shared/data/liveqa-med"))
        each.set_defaults(do=do)
    commands.choices["run"].add_argument("--backend", required=True)
    commands.choices["run"].add_argument("--out", type=Path, required=True)
    commands.choices["turns"].add_argument("backends", nargs=2)
    against = commands.add_parser("compare")
    against.add_argument("files", type=Path, nargs="+")
    against.set_defaults(do=compare)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
