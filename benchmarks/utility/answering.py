"""What a reader makes of each system's first passage, measured once for each question and passage.

A system is the mean over its seeds. READER also made the labels, which is what answer likelihood promises to serve;
GRADER and the likelihood's model did not. Goes on where it was stopped: WORK/readings.jsonl, and the cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.utility import labels
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.formats.beir import Collection, Run
from qrelay.formats.lines import byte_lines, json_value
from qrelay.formats.runs import ranked
from qrelay.judging.cache import open_cache
from qrelay.stats.paired import compare
from qrelay.training.evaluation.answers import Reading, grade, read
from qrelay.training.evaluation.llm import Llm
from qrelay.training.evaluation.questions import Questions
from qrelay.training.evaluation.squad import exact_match, token_f1

READER: Final = "qwen2.5-coder-0.5b-instruct"
GRADER: Final = "qwen2.5-coder-1.5b-instruct"
LIKELIHOOD: Final = "smollm2-135m-instruct"
MAX_TOKENS: Final = 48
AT_ONCE: Final = 8
Pair = tuple[str, str]
"""Question and document."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The graded pairs, for texts and references; the collection that was ranked; where to keep what was read."""

    pairs: Sequence[GradedPair]
    collection: Collection
    out: Path
    cache: Path


def answered(asked: Asked, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Every system's means, and its differences from the untrained model and from labels of the question."""
    first = {name: [_first(run) for run in each] for name, each in runs.items()}
    wanted = sorted({pair for each in first.values() for pairs in each for pair in pairs.items()})
    told = {pair: values | {"gain": gain} for (pair, values), gain in
            zip(_readings(asked, wanted).items(), _gains(asked, wanted), strict=True)}  # fmt: skip
    columns = {name: _columns(each, told) for name, each in first.items()}
    found: dict[str, Any] = {"readings": len(wanted), "means": {}, "less base": {}, "less query": {}}
    for name, each in columns.items():
        found["means"][name] = {measure: float(column.mean()) for measure, column in each.items()}
        for other, against in (("base", "base"), ("query", name.replace("answer,", "query,"))):
            if against in columns and against != name:
                found[f"less {other}"][name] = [asdict(test) for test in compare(columns[against], each)]
    return found


def _first(run: Run) -> dict[str, str]:
    return {query_id: ranked(documents)[0] for query_id, documents in run.items()}


def _columns(seeds: Sequence[Mapping[str, str]], told: Mapping[Pair, Mapping[str, float]]) -> dict[str, Any]:
    """measure -> each question's mean over the seeds."""
    values = {name: np.array([[told[pair][name] for pair in sorted(seed.items())] for seed in seeds])
              for name in ("f1", "em", "grade", "gain")}  # fmt: skip
    return {name: rows.mean(0) for name, rows in values.items() if np.isfinite(rows).all()}


def _gains(asked: Asked, wanted: Sequence[Pair]) -> list[float]:
    """nats a token by which the passage makes the reference likelier for a model of another family."""
    known = {pair.query_id: pair for pair in asked.pairs}
    texts = {pair.passage_id: pair for pair in asked.pairs}
    pairs = [
        GradedPair(q, d, 0, known[q].query, texts[d].title, texts[d].text, known[q].reference_answers)
        for q, d in wanted
    ]
    with labels.labellers(LIKELIHOOD, asked.cache, ("answer",)) as panel:
        labels.label(panel, pairs)
    cache = open_cache(str(asked.cache))
    try:
        return list(labels.recorded(cache, pairs, "answer", LIKELIHOOD).column("answer"))
    finally:
        cache.close()


def _readings(asked: Asked, wanted: Sequence[Pair]) -> dict[Pair, dict[str, float]]:
    path = asked.out / "readings.jsonl"
    rows = [json_value(line) for _, line in byte_lines(path)] if path.exists() else []
    there: dict[Pair, dict[str, Any]] = {(row["query_id"], row["doc_id"]): row for row in rows}
    lacking = [pair for pair in wanted if pair not in there]
    with path.open("a") as file:
        for start in range(0, len(lacking), AT_ONCE):
            for row in _read(asked, lacking[start : start + AT_ONCE]):
                file.write(json.dumps(row) + "\n")
                there[row["query_id"], row["doc_id"]] = row
            file.flush()
    return {pair: {name: _number(there[pair][name]) for name in ("f1", "em", "grade")} for pair in wanted}


def _read(asked: Asked, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The reader's answer from each passage alone, and its grade. A question stands here once a passage."""
    known = {pair.query_id: pair for pair in asked.pairs}
    names = {f"{q}|{d}": (q, d) for q, d in pairs}
    queries = {name: known[q].query for name, (q, _) in names.items()}
    collection = Collection(asked.collection.doc_ids, asked.collection.texts, queries, {})
    questions = Questions(collection, {name: known[q].reference_answers for name, (q, _) in names.items()}, 0)
    run = {name: {d: 1.0} for name, (_, d) in names.items()}
    readings = read(questions, run, Llm(READER), k=1, max_tokens=MAX_TOKENS)
    return [_row(names[each.query_id], each, questions) for each in grade(questions, readings, Llm(GRADER))]


def _row(pair: Pair, reading: Reading, questions: Questions) -> dict[str, Any]:
    told = questions.references[reading.query_id]
    missing = bool(reading.missing)
    return {"query_id": pair[0], "doc_id": pair[1], "answer": reading.answer, "missing": reading.missing,
            "f1": None if missing else token_f1(reading.answer, told),
            "em": None if missing else exact_match(reading.answer, told), "grade": reading.grade}  # fmt: skip


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
