"""Training data: exports of the sink (`qrelay export triples`, `qrelay export labels`) as examples.

    examples, dropped = load_examples(expand(["exports/*.jsonl"]), reading)

A line of an export is told by its keys. Of `triples` the positives and negatives are those that mining chose; of
`labels` every graded passage comes, and its `role` says what mining made of it. A TSV of annotated pairs is read too:
people's labels, an example a query, grades brought to 0..1 by the least and the highest in any of the TSVs, which are
on one scale; for `p_relevant` their upper half is 1, the rest 0. What
is neither positive nor negative (a filter kept it out: it may be relevant) is never pushed away; it trains through
its soft target alone.

Soft targets (`Reading.target`): p_relevant; expected_relevance, in 0..1; grade, brought to 0..1 by the least and the
highest grade that the data hold; answer_nll, as -nll in nats a token, so that a higher one is better here too.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from qrelay.errors import ConfigError, MalformedInput
from qrelay.formats.annotated_pairs import GradedPair, read_annotated_pairs, relevant_from
from qrelay.formats.lines import BadRecord, byte_lines, parsed
from qrelay.text import passage_text
from qrelay.training.posterior import with_posterior

Target = Literal["p_relevant", "expected_relevance", "answer_nll", "grade"]
WEAK: Final = "weak"
HUMAN: Final = "human"
MIXED: Final = "mixed"
_POSITIVE: Final = "positive"
_NEGATIVE: Final = "negative"
_EXPORT: Final = {WEAK: "export without --overrides", HUMAN: "export with --judge human --overrides"}


@dataclass(frozen=True, slots=True)
class Document:
    """A passage as the model reads it, with its soft target, a higher one being better."""

    text: str
    target: float
    human: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """A query with its positives, the best first, its negatives, the hardest first, and its other labelled
    documents, which are neither."""

    query_id: str
    query: str
    positives: tuple[Document, ...]
    negatives: tuple[Document, ...]
    others: tuple[Document, ...] = ()

    @property
    def documents(self) -> tuple[Document, ...]:
        """All of them, in that order."""
        return self.positives + self.negatives + self.others


@dataclass(frozen=True, slots=True)
class Reading:
    """How lines become examples.

    positives: "roles", mining's; "target", those whose target is at least `relevant_from`, so a line without roles is
    read too. prior: the system whose scores `labels` are combined with, see `posterior.py`. others: whether
    documents that are neither are kept. need_positive: whether an example without a positive is dropped.
    """

    target: Target = "p_relevant"
    positives: Literal["roles", "target"] = "roles"
    relevant_from: float = 0.5
    others: bool = False
    need_positive: bool = True
    prior: str = ""
    prior_temperature: float = 0.05


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that globs name, sorted, each once. Raises ConfigError where one names none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = sorted(glob.glob(pattern))  # noqa: PTH207
        if not paths:
            raise ConfigError(
                f"no training data at {pattern!r}: write it with `qrelay export triples` or `qrelay export labels`"
            )
        found.update(dict.fromkeys(map(Path, paths)))
    if not found:
        raise ConfigError("no training data: give --data, or name it in the experiment's stages")
    return list(found)


def load_examples(paths: Iterable[Path], reading: Reading) -> tuple[list[Example], Counter[str]]:
    """The examples that train something, and how many were dropped by reason.

    Reasons: `documents_without_target`; `no_positive`; `no_other_document`, where there is nothing to set against the
    positive; `one_target`, where without a positive all targets are equal. The first counts documents.

    Raises:
        MalformedInput: see `read_examples`.
        ConfigError: nothing is left, and documents lack what `target` and `prior` name.
    """
    dropped: Counter[str] = Counter()
    read = list(read_examples(paths, reading, dropped))
    if reading.target == "grade":
        read = _scaled(read)
    kept = []
    for example in read:
        if reason := _useless(example, reading):
            dropped[reason] += 1
        else:
            kept.append(example)
    if dropped["documents_without_target"] and not kept:
        counts = ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items()) if count)
        prior = f", or a score of the prior's system {reading.prior!r}" if reading.prior else ""
        raise ConfigError(
            f"the training data holds no example ({counts}); documents_without_target lack {reading.target}{prior}:"
            " set `target` and `prior` to what the export's passages have"
        )
    return kept, dropped


def read_examples(
    paths: Iterable[Path], reading: Reading = Reading(), dropped: Counter[str] | None = None
) -> Iterator[Example]:
    """Every line as an example, in their order, whether it trains anything or not.

    Raises:
        MalformedInput: a file that cannot be read, or a line that is none; it is named.
    """
    counts: Counter[str] = Counter() if dropped is None else dropped
    paths = list(paths)
    people = _annotated([path for path in paths if path.suffix == ".tsv"], reading)
    for path in paths:
        if path in people:
            yield from people[path]
            continue
        for _, example in parsed(path, byte_lines(path), lambda line: _example(line, reading, counts)):
            yield example


def require_labels(examples: Iterable[Example], wanted: str, stage: str) -> None:
    """Refuses people's labels in a stage of weak ones and the reverse; "mixed" takes both.

    Raises:
        ConfigError: it names the first offender and how many there are.
    """
    if wanted == MIXED:
        return
    first, count = "", 0
    for example in examples:
        offenders = [each for each in example.documents if each.human != (wanted == HUMAN)]
        if offenders and not count:
            first = f"query {example.query_id}, {offenders[0].text[:60]!r}"
        count += len(offenders)
    if count:
        found = "judges'" if wanted == HUMAN else "people's"
        raise ConfigError(
            f"stage {stage} takes {wanted} labels alone, and {count} of its labels are {found}, the first of {first}:"
            f" {_EXPORT[wanted]}, put them into a stage of their own, or set the stage's labels to mixed"
        )


def _example(line: bytes, reading: Reading, dropped: Counter[str]) -> Example:
    try:
        row = orjson.loads(line)
        if reading.prior:  # lines of triples hold no scores
            row["passages"] = with_posterior(row["passages"], reading.prior, reading.prior_temperature)
        passages = list(_with_roles(row))
        documents = [(role, _document(each, reading.target)) for role, each in passages]
        present = [(role, document) for role, document in documents if document is not None]
        dropped["documents_without_target"] += len(documents) - len(present)
        sides = _sides(present, reading)
        return Example(row["query_id"], row["query"], *sides)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRecord(
            f"no line of `qrelay export triples` or `qrelay export labels`"
            f" ({type(error).__name__}: {error}); with target {reading.target} each passage needs that key, with a"
            " prior also the scores that `qrelay export labels` writes"
        ) from error


def _annotated(paths: Sequence[Path], reading: Reading) -> dict[Path, list[Example]]:
    """The pairs that people graded, an example a query; all files are on one scale."""
    if paths and (reading.target not in ("grade", "p_relevant") or reading.prior):
        raise MalformedInput(
            f"{paths[0]} holds people's grades alone: set target to grade or p_relevant, and no prior"
        )
    read = {path: read_annotated_pairs(path) for path in paths}
    grades = [pair.grade for pairs in read.values() for pair in pairs if pair.grade is not None]
    try:
        relevant = relevant_from(grades) if paths else 0
    except MalformedInput as error:
        raise MalformedInput(f"{', '.join(map(str, paths))}: {error}") from error
    low, high = min(grades, default=0), max(grades, default=1)

    def target(grade: int) -> float:
        return float(grade >= relevant) if reading.target == "p_relevant" else (grade - low) / (high - low)

    return {path: _by_query(pairs, target, reading) for path, pairs in read.items()}


def _by_query(pairs: Iterable[GradedPair], target: Callable[[int], float], reading: Reading) -> list[Example]:
    found: dict[str, list[tuple[str | None, Document]]] = {}
    asked: dict[str, str] = {}
    for pair in pairs:
        if pair.grade is not None:
            document = Document(passage_text(pair.title, pair.text), target(pair.grade), human=True)
            found.setdefault(pair.query_id, []).append((None, document))
            asked[pair.query_id] = pair.query
    return [Example(query_id, asked[query_id], *_sides(each, reading)) for query_id, each in found.items()]


def _with_roles(row: Mapping[str, Any]) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """The passages with their roles; None where the line says nothing of roles."""
    if "passages" not in row:
        yield from ((_POSITIVE, each) for each in row["positives"])
        yield from ((_NEGATIVE, each) for each in row["negatives"])
        return
    ordered = sorted(row["passages"], key=lambda each: (not each.get("hard", False), -float(each["p_relevant"] or 0)))
    yield from ((each.get("role"), each) for each in ordered)


def _document(passage: Mapping[str, Any], target: str) -> Document | None:
    """None where its target was not measured."""
    value = passage[target]
    if value is None:
        return None
    text = passage_text(passage["title"], passage["text"])
    return Document(text, -float(value) if target == "answer_nll" else float(value), bool(passage.get("human")))


def _sides(
    documents: Sequence[tuple[str | None, Document]], reading: Reading
) -> tuple[tuple[Document, ...], tuple[Document, ...], tuple[Document, ...]]:
    """(positives, negatives, others)."""
    sides: dict[str, list[Document]] = {_POSITIVE: [], _NEGATIVE: [], "": []}
    for role, document in documents:
        sides[_side(role, document.target, reading)].append(document)
    if reading.positives == "target":
        sides[_POSITIVE].sort(key=lambda document: -document.target)
    others = sides[""] if reading.others else []
    return tuple(sides[_POSITIVE]), tuple(sides[_NEGATIVE]), tuple(others)


def _side(role: str | None, target: float, reading: Reading) -> str:
    if role is not None and reading.positives == "roles":
        return role
    if target >= reading.relevant_from:
        return _POSITIVE
    return _NEGATIVE if role in (None, _NEGATIVE) else ""


def _scaled(examples: Sequence[Example]) -> list[Example]:
    """Grades brought to 0..1."""
    grades = [document.target for example in examples for document in example.documents]
    if not grades:
        return list(examples)
    low, span = min(grades), (max(grades) - min(grades)) or 1.0

    def scaled(documents: tuple[Document, ...]) -> tuple[Document, ...]:
        return tuple(replace(each, target=(each.target - low) / span) for each in documents)

    return [
        replace(each, positives=scaled(each.positives), negatives=scaled(each.negatives), others=scaled(each.others))
        for each in examples
    ]


def _useless(example: Example, reading: Reading) -> str:
    """Why it trains nothing, in a word; empty where it does."""
    if not example.positives and reading.need_positive:
        return "no_positive"
    if not example.positives and len({document.target for document in example.documents}) < 2:
        return "one_target"
    return ""
