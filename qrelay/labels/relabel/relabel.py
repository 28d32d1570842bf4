"""A training set judged row by row, and written again.

What was judged is in the judge's cache, and the output appears whole or not at all. So a run that is stopped, by a
signal, a budget or an endpoint, is run again with the same command: it pays for nothing twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from qrelay.errors import BudgetExhausted, InputError, OnHold, QrelayError
from qrelay.formats.training.beir import BeirFolder
from qrelay.formats.training.containers import RowWriter
from qrelay.formats.training.detect import TrainingSet
from qrelay.formats.training.example import Row, TrainingExample
from qrelay.identity import digest, judge_digest
from qrelay.labels.exports.files import Folder, OneFile, described, open_output, overall_sha256
from qrelay.labels.ledger.reader import JudgeRow, Label
from qrelay.labels.permission import Usage
from qrelay.labels.qualification import NO_REPORT, USES
from qrelay.labels.relabel.rules import Rules, counting, score_of
from qrelay.labels.relabel.tally import Seen, Tally
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment, Passage, Query

Ask = Callable[[Sequence[CandidateSet]], Awaitable[Sequence[JudgedSet | QrelayError]]]
"""The judge. Raises BudgetExhausted, OnHold: not now."""
FORMAT = "qrelay-relabel/1"
BATCH = 8
"""Rows that are judged together."""
_Example = tuple[Row, TrainingExample]


@dataclass(slots=True)
class Relabelled:
    """A run so far. stopped: why it ended early, empty where it did not; passages: what became of them, counted;
    judges: hash -> identity."""

    tally: Tally
    stopped: str = ""
    rows_written: int = 0
    passages: Counter[str] = field(default_factory=Counter)
    judges: dict[str, Any] = field(default_factory=dict)


class Relabel:
    """One set on its way through the judge. out: where it is written; None: it is only measured."""

    def __init__(
        self, found: TrainingSet, ask: Ask, rules: Rules, *, out: Path | None = None,
        usage: Usage | None = None, examples: int = 10, progress: Callable[[int], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """progress: told how many rows are done, batch by batch."""
        self._set, self._ask, self._rules, self._out = found, ask, rules, out
        self._usage, self._progress = usage or Usage(NO_REPORT), progress
        self.done = Relabelled(Tally(rules, examples))
        self._writer: RowWriter | None = None
        self._output: OneFile | Folder | None = None

    async def run(self) -> dict[str, Any]:
        """Judges all of it, and writes it where that is asked for; the report, which is the manifest.

        A used-up budget ends it early, and so does an endpoint that asks for a long pause; nothing is written then.

        Raises:
            MalformedInput: a row that is none; the line is named.
            NotQualified: the judge's labels may not train.
            OSError: the place cannot be written.
        """
        source = self._set.container.source
        if self._out:
            _refuse_same(self._out, source)
            self._output = open_output(self._out, folder=isinstance(self._set.container, BeirFolder))
        try:
            await self._judge_all()
            report = self._report()
            if self._output and not self.done.stopped:
                self._commit(report)
            return report
        finally:
            if self._output:
                self._output.abandon()
            self.done.tally.close()

    async def _judge_all(self) -> None:
        for rows in _batches(self._set.examples(), BATCH):
            try:
                answers = await self._ask([_candidates(example) for _, example in rows])
            except (BudgetExhausted, OnHold) as error:
                self.done.stopped = str(error)
                return
            for (row, example), answer in zip(rows, answers, strict=True):
                self._one(row, example, answer)
            self._progress(len(rows))

    def _one(self, row: Row, example: TrainingExample, answer: JudgedSet | QrelayError) -> None:
        if isinstance(answer, QrelayError):
            raise answer
        passages = (*example.positives, *example.negatives)
        judgments = _by_place(answer, len(passages))
        scores = [score_of(each) for each in judgments]
        middle = len(example.positives)
        for judgment in judgments:
            self._note(judgment)
        seen = [
            Seen(passage, judgment, score, place >= middle)
            for place, (passage, judgment, score) in enumerate(zip(passages, judgments, scores, strict=True))
        ]
        self.done.tally.add(example, seen, example.source or Path(self._set.container.source).name)
        if self._output:
            self._write(row, scores[:middle], scores[middle:])

    def _note(self, judgment: Judgment) -> None:
        hashed = judge_digest(judgment.judge)
        if hashed not in self.done.judges:
            identity = judgment.judge
            self.done.judges[hashed] = {name: getattr(identity, name) for name in identity.__slots__}
        if self._output and isinstance(judgment.outcome, Graded):  # what stays a negative is one by its word too
            label = Label("", 0, None, None, None, None, None, judgment.outcome.calibration or None, 0)
            self._usage.add(JudgeRow(0, hashed, judgment.judge), label, USES, trains=True)

    def _write(self, row: Row, positives: Sequence[float | None], negatives: Sequence[float | None]) -> None:
        decided = self._rules.decide(positives, negatives)
        counts = self.done.passages
        counts["positives_dropped"] += sum(not each.keep for each in decided.positives)
        counts["negatives_dropped"] += sum(not each.keep for each in decided.negatives)
        counts["negatives_promoted"] += len(decided.promoted)
        counts["without_score"] += sum(each.score is None for each in (*decided.positives, *decided.negatives))
        rows = self._set.layout.cleaned(row, decided)
        counts["rows_dropped"] += not rows
        for each in rows:
            self._to_writer(each).write(each)
            self.done.rows_written += 1

    def _to_writer(self, first: Row) -> RowWriter:
        if self._writer is None:
            output, container = self._output, self._set.container
            assert output is not None  # it is what is written to
            if isinstance(container, BeirFolder):
                self._writer = container.writer(output.open, first)
            else:
                self._writer = container.writer(output.open(""), first)
        return self._writer

    def _commit(self, report: dict[str, Any]) -> None:
        """Raises InputError: nothing is left to write."""
        if self._writer is None or self._output is None:
            raise InputError(
                f"nothing of {self._set.container.source} is left to train on: every row lost its positives or its"
                " negatives; look at the report, and raise --relevant-from, or give --negatives promote"
            )
        self._writer.close()
        report["sha256"] = overall_sha256(self._output.sinks)
        report["files"] = described(self._output.sinks)
        self._output.commit(report)

    def _report(self) -> dict[str, Any]:
        done, container = self.done, self._set.container
        return {
            "format": FORMAT,
            "collection": Path(container.source).name,
            "layout": self._set.layout.name,
            "container": container.kind,
            "source": container.source,
            "source_sha256": _sha256(container.source),
            "rules": self._rules.as_json(),
            "rows": done.tally.rows,
            "rows_written": done.rows_written,
            **{name: done.passages[name] for name in _COUNTS},
            **done.tally.as_json(),
            "judges": done.judges,
            "calibrations": sorted(done.tally.calibrations - {""}),
            "qualification": self._usage.summary(),
            "stopped": done.stopped,
        }


_COUNTS = ("rows_dropped", "positives_dropped", "negatives_dropped", "negatives_promoted", "without_score")


def _batches(examples: Iterator[_Example], size: int) -> Iterator[list[_Example]]:
    while part := list(islice(examples, size)):
        yield part


def _candidates(example: TrainingExample) -> CandidateSet:
    """The passages under their places: their own ids may lack, or repeat."""
    passages = (
        Passage(str(place), each.doc_id, each.title, each.text)
        for place, each in enumerate((*example.positives, *example.negatives))
    )
    query = Query(example.query_id or digest(example.query)[:12], example.query, "relabel")
    return CandidateSet(query, tuple(Candidate(each, (), True) for each in passages), "a training set")


def _by_place(judged: JudgedSet, passages: int) -> list[Judgment]:
    """The judgment that counts of each passage, in their order."""
    found: dict[int, list[Judgment]] = {place: [] for place in range(passages)}
    for each in judged.judgments:
        found[int(each.passage_id)].append(each)
    return [counting(each) for each in found.values()]


def _refuse_same(out: Path, source: str) -> None:
    """Raises InputError: the output is the input, or stands in its way."""
    with suppress(OSError):
        if out.exists() and Path(source).exists() and out.samefile(source):
            raise InputError(f"{out} is the set that is read: write the cleaned one to another place")


def _sha256(source: str) -> str | None:
    """Of a file's bytes; of a folder, of its files' names and bytes; None of a data set of the hub."""
    path = Path(source)
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    if not path.exists():
        return None
    digest_ = hashlib.sha256()
    for file in files:
        if path.is_dir():
            digest_.update(str(file.relative_to(path)).encode())
        with file.open("rb") as opened:
            while part := opened.read(1 << 20):
                digest_.update(part)
    return digest_.hexdigest()
