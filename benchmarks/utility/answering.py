"""What a reader makes of each system's first passage, measured once for each question and passage.

A system is the mean over its first seeds. READER also made the labels, which is what answer likelihood promises to
serve; GRADER and the likelihood's model did not. Goes on where it was stopped: WORK/readings.jsonl,
WORK/grades.jsonl and the cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.utility import labels
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.formats.beir import Collection, Run
from qrelay.formats.lines import byte_lines, json_value
from qrelay.formats.runs import ranked
from qrelay.stats.paired import compare
from qrelay.training.evaluation.answers import Reading, grade, read
from qrelay.training.evaluation.llm import Llm
from qrelay.training.evaluation.questions import Questions
from qrelay.training.evaluation.squad import exact_match, token_f1

READER: Final = "qwen2.5-coder-0.5b-instruct"
GRADER: Final = "qwen2.5-coder-1.5b-instruct"
LIKELIHOOD: Final = "smollm2-135m-instruct"
MAX_TOKENS: Final = 48
SEEDS_READ: Final = 3
AT_ONCE: Final = 8
Pair = tuple[str, str]
"""Question and document."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The graded pairs, for texts and references; the collection that was ranked; where to keep what was read; how
    many questions are asked, None: all."""

    pairs: Sequence[GradedPair]
    collection: Collection
    out: Path
    cache: Path
    questions: int | None = None


def answered(asked: Asked, runs: Mapping[str, Sequence[Run]], *, reading: bool) -> dict[str, Any]:
    """Every system's means, and its differences from the untrained model and from labels of the question. Without
    `reading` the reference's likelihood alone, which takes minutes."""
    some = sorted(asked.collection.queries)[: asked.questions]
    first = {name: [_first(run, some) for run in each[:SEEDS_READ]] for name, each in runs.items()}
    wanted = sorted({pair for each in first.values() for pairs in each for pair in pairs.items()})
    gains = [{"gain": gain} for gain in _gains(asked, wanted)]
    answers = _told(asked, wanted) if reading else [{} for _ in wanted]
    told = {pair: {**one, **other} for pair, one, other in zip(wanted, gains, answers, strict=True)}
    columns = {name: _columns(each, told) for name, each in first.items()}
    found: dict[str, Any] = {"questions": len(some), "readings": len(wanted), "systems": {}}
    for name, each in columns.items():
        against = {"base": "base", "query": name.replace("answer,", "query,")}
        tests = {f"less {kind}": [asdict(test) for test in compare(columns[other], each)]
                 for kind, other in against.items() if other in columns and other != name}  # fmt: skip
        found["systems"][name] = {"means": {key: float(column.mean()) for key, column in each.items()}, **tests}
    return found


def _told(asked: Asked, wanted: Sequence[Pair]) -> list[dict[str, float]]:
    """What was read, of each pair."""
    readings = kept(asked.out / "readings.jsonl", wanted, lambda pairs: _read(asked, pairs))
    grades = kept(asked.out / "grades.jsonl", wanted, lambda pairs: _grade(asked, [readings[each] for each in pairs]))
    return [
        {"f1": _number(readings[pair]["f1"]), "em": _number(readings[pair]["em"]),
         "grade": _number(grades[pair]["grade"])}
        for pair in wanted
    ]  # fmt: skip


def kept(
    path: Path, wanted: Sequence[Pair], make: Callable[[Sequence[Pair]], list[dict[str, Any]]]
) -> dict[Pair, dict[str, Any]]:
    """A row each of what is wanted: those in the file, and those that are lacking, a few at a time, into it."""
    rows = [json_value(line) for _, line in byte_lines(path)] if path.exists() else []
    there: dict[Pair, dict[str, Any]] = {(row["query_id"], row["doc_id"]): row for row in rows}
    lacking = [pair for pair in wanted if pair not in there]
    with path.open("a") as file:
        for start in range(0, len(lacking), AT_ONCE):
            part = lacking[start : start + AT_ONCE]
            for pair, row in zip(part, make(part), strict=True):
                there[pair] = {"query_id": pair[0], "doc_id": pair[1], **row}
                file.write(json.dumps(there[pair]) + "\n")
            file.flush()
    return there


def _first(run: Run, query_ids: Sequence[str]) -> dict[str, str]:
    return {query_id: ranked(run[query_id])[0] for query_id in query_ids}


def _columns(seeds: Sequence[Mapping[str, str]], told: Mapping[Pair, Mapping[str, float]]) -> dict[str, Any]:
    """measure -> each question's mean over the seeds; nothing of a measure that some pair lacks."""
    names = next(iter(told.values()))
    values = {
        name: np.array([[told[pair][name] for pair in sorted(seed.items())] for seed in seeds]) for name in names
    }
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
    return list(labels.kept(asked.cache, pairs, "answer", LIKELIHOOD).column("answer"))


def _read(asked: Asked, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The reader's answer from each passage alone."""
    questions = _questions(asked, pairs)
    run = {name: {doc_id: 1.0} for name, (_, doc_id) in zip(questions.references, pairs, strict=True)}
    readings = read(questions, run, Llm(READER), k=1, max_tokens=MAX_TOKENS)
    return [_row(each, questions.references[each.query_id]) for each in readings]


def _grade(asked: Asked, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The grader's grade of each answer, 0 to 1."""
    pairs = [(row["query_id"], row["doc_id"]) for row in rows]
    questions = _questions(asked, pairs)
    readings = [Reading(name, (row["doc_id"],), row["answer"], row["missing"])
                for name, row in zip(questions.references, rows, strict=True)]  # fmt: skip
    return [{"grade": each.grade, "missing": each.grade_missing} for each in grade(questions, readings, Llm(GRADER))]


def _questions(asked: Asked, pairs: Sequence[Pair]) -> Questions:
    """A question stands here once a passage."""
    known = {pair.query_id: pair for pair in asked.pairs}
    queries = {f"{q}|{d}": known[q].query for q, d in pairs}
    references = {f"{q}|{d}": known[q].reference_answers for q, d in pairs}
    return Questions(Collection(asked.collection.doc_ids, asked.collection.texts, queries, {}), references, 0)


def _row(reading: Reading, references: Sequence[str]) -> dict[str, Any]:
    known = not reading.missing
    return {"answer": reading.answer, "missing": reading.missing,
            "f1": token_f1(reading.answer, references) if known else None,
            "em": exact_match(reading.answer, references) if known else None}  # fmt: skip


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
