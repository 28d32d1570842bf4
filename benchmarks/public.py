"""The public collections of the judges' benchmarks, their graded pairs, and the options that these commands share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qrelay.formats.annotated_pairs import GradedPair, read_beir


@dataclass(frozen=True, slots=True)
class Public:
    """A collection below the data folder. peers: figures of labels that others published, by the judge's name."""

    title: str
    queries: str
    qrels: str
    relevant_from: int
    peers: Mapping[str, Mapping[str, float]]
    runs: str = ""

    def pairs(self, folder: Path, **how: Any) -> list[GradedPair]:
        """Its graded pairs. how: as of `read_beir`."""
        return read_beir(folder, folder / self.queries, folder / self.qrels, **how)


LIVEQA: Final = Public("LiveQA-Med dev", "queries.dev.jsonl", "qrels.dev.tsv", 3, {})
COLLECTIONS: Final = {
    "llmjudge-dl23": Public(
        "LLMJudge DL23", "queries.jsonl", "qrels/test.tsv", 2,
        {"Llama-3-8B, direct": {"auc": 0.726, "kappa_binary": 0.329, "kappa_four_point": 0.188},
         "Llama-3-70B, four prompts": {"auc": 0.766, "kappa_binary": 0.371, "kappa_four_point": 0.209}}),
    "trec-dl19": Public(
        "TREC DL19", "queries.jsonl", "qrels/test.tsv", 2,
        {"Llama-3-8B, direct": {"auc": 0.718, "kappa_binary": 0.272, "kappa_four_point": 0.128, "tau": 0.891},
         "Llama-3-70B, four prompts": {"auc": 0.813, "kappa_binary": 0.388, "kappa_four_point": 0.167, "tau": 0.868},
         "Flan-T5-large": {"auc": 0.741, "kappa_binary": 0.322, "kappa_four_point": 0.227, "tau": 0.904}}, "runs"),
    "liveqa-med": LIVEQA,
}  # fmt: skip


def relevant(pairs: Sequence[GradedPair], public: Public) -> list[bool]:
    """Whether people find each pair relevant."""
    return [(pair.grade or 0) >= public.relevant_from for pair in pairs]


def halves(pairs: Sequence[GradedPair]) -> tuple[list[int], list[int]]:
    """Rows of half A, the queries at even places of the sorted ids, and of half B."""
    even = set(sorted({pair.query_id for pair in pairs})[::2])
    rows = range(len(pairs))
    return [n for n in rows if pairs[n].query_id in even], [n for n in rows if pairs[n].query_id not in even]


def cell(value: float | None, interval: Sequence[float | None] | None = None, sign: str = "") -> str:
    """A figure with its interval in a table; "" where there is none. sign: "+" for differences."""
    shown = "" if value is None else f"{value:{sign}.3f}"
    known = " to ".join(f"{each:{sign}.3f}" for each in interval or () if each is not None)
    return f"{shown} ({known})" if known else shown


def difference(value: float, low: float, high: float, p: float) -> str:
    """A paired test in a table."""
    return f"{cell(value, (low, high), '+')}, p {p:.3f}"


def options(about: str | None) -> argparse.ArgumentParser:
    """Of a command that reads collections, the judgment cache and vectors."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", default=".qrelay/judge-cache.sqlite", help="A file, or postgresql://…")
    parser.add_argument("--vectors", type=Path, default=Path(".qrelay/vectors"), help="Folder of passages' vectors.")
    return parser
