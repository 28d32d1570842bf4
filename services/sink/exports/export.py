"""Exports: files that are a function of the ledger's labels. Same ledger, same bytes.

Everything is sorted by id, nothing carries a time, a cost or a cache mark, and numbers are rounded to six
decimals, so the order in which queries were committed, a redelivery or a second sink cannot change a byte.

qrels    TREC: `query_id 0 passage_id grade`. Judged zeros are in, missing judgments are out. The grade is
         counted from the scale's lowest (scale 1-4: 1 becomes 0), so that 0 means not relevant at all on
         every scale, as TREC's readers take it.
triples  JSONL, one object a query with at least one positive and one hard negative (`mining.py`). `grade`
         is the judge's own, on the scale that the manifest names.

One label a pair, whoever else labelled it (`labels.py`): a cascade's before a fused one before a single judge's, then
a graded one before a missing one, then the latest generation, then the lowest judge hash; or only those of the judge
that `judge` names. Triples may leave out labels that lean on the stages' scores (`MiningRules.without_stage_scores`),
and are refused where a judge that they train on was measured and found unfit (`qualification.py`).

    for chunk in export_bytes(ledger, "medquad", "qrels"): ...
    manifest = export_file(ledger, "medquad", "triples", Path("triples.jsonl"))
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson

from qrelay.errors import BackendUnavailable, InputError, InternalError
from qrelay.files import AtomicFiles
from services.sink.labels.choice import chosen_judges, leans_on_stage_scores, one_a_pair
from services.sink.labels.qualification import NEGATIVES, NO_REPORT, POSITIVES, USES, Report, Usage
from services.sink.ledger.ledger import Ledger
from services.sink.ledger.reader import JudgeRow, Label, LabelledQuery, Snapshot
from services.sink.ledger.schema import SCHEMA_VERSION
from services.sink.mining.mine import NEGATIVE, POSITIVE, MiningRules, Verdict, mine
from services.sink.mining.triples import judged_passages, triple

QRELS: Final = "qrels"
TRIPLES: Final = "triples"
FORMATS: Final = (QRELS, TRIPLES)
_CHUNK_BYTES = 64 * 1024


class Export:
    """One export: iterate `chunks()` to the end, then read the counts and `manifest()`.

    It reads one snapshot of the ledger in pages: memory does not grow with the ledger. May be read
    from any thread, one at a time.
    """

    def __init__(
        self,
        ledger: Ledger,
        collection: str,
        kind: str,
        *,
        rules: MiningRules | None = None,
        judge: str | None = None,
        report: Report = NO_REPORT,
        unqualified: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """`judge`: a judge hash or the beginning of one, or a strategy; None: see the module's docstring.
        `report`: what was measured of the judges; `unqualified`: train on their labels whatever it says.
        `on_progress` is called with (queries read, queries in all) after each query.

        Raises:
            InputError: no such format.
        """
        if kind not in FORMATS:
            raise InputError(f"there is no export format {kind!r}: use {' or '.join(FORMATS)}")
        self.collection = collection
        self.kind = kind
        self._ledger = ledger
        self._rules = rules or MiningRules()
        self._judge = judge
        self._usage = Usage(report, unqualified=unqualified)
        self._on_progress = on_progress
        self.rows = 0
        """Lines written."""
        self.queries = 0
        """Queries that have a line."""
        self.missing: Counter[str] = Counter()
        """Missing judgments by reason, over all queries."""
        self._queries_in_ledger = 0
        self._judges_used: dict[int, JudgeRow] = {}
        self._generations: dict[int, set[int]] = {}
        self._grades: Counter[int] = Counter()
        self._sha = hashlib.sha256()
        self._finished = False

    @property
    def qualification(self) -> str:
        """The least of the verdicts on the labels used so far; see `qualification.py`."""
        return self._usage.verdict

    @property
    def missing_judgments(self) -> int:
        """Pairs without a label, all reasons together."""
        return self.missing.total()

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes, in pieces of about 64 KiB. Once.

        Raises:
            UnknownCollection: the ledger holds no query of it.
            InputError: no such judge, a scale without a relevant grade, or training data from a judge that is not
                qualified.
            BackendUnavailable: the database does not answer.
        """
        buffer = bytearray()
        with self._ledger.snapshot() as snapshot:
            for line in self._lines(snapshot):
                buffer += line
                if len(buffer) >= _CHUNK_BYTES:
                    yield self._emit(buffer)
        if buffer:
            yield self._emit(buffer)
        self._finished = True

    def manifest(self) -> dict[str, Any]:
        """What the bytes are: counts, sha256, judges and what was measured of them, rules. A function of the ledger,
        as the bytes are, and of the report."""
        if not self._finished:
            raise InternalError("an export's manifest was asked for before its chunks were read")
        judges = sorted(self._judges_used.values(), key=lambda judge: judge.judge_hash)
        return {
            "format": self.kind,
            "collection": self.collection,
            "rows": self.rows,
            "queries": self.queries,
            "sha256": self._sha.hexdigest(),
            "missing": dict(sorted(self.missing.items())),
            "grades": {str(grade): count for grade, count in sorted(self._grades.items())},
            "judges": [_describe(judge, self._generations[judge.judge_no]) for judge in judges],
            "qualification": self._usage.summary(),
            "ledger": {"schema_version": SCHEMA_VERSION, "queries": self._queries_in_ledger},
            **({"rules": _describe_rules(self._rules)} if self.kind == TRIPLES else {}),
        }

    def _emit(self, buffer: bytearray) -> bytes:
        chunk = bytes(buffer)
        buffer.clear()
        self._sha.update(chunk)
        return chunk

    def _lines(self, snapshot: Snapshot) -> Iterator[bytes]:
        total = snapshot.require_collection(self.collection).queries
        judges = self._counting(snapshot)
        whole = self.kind == TRIPLES
        read = snapshot.labelled_queries if whole else snapshot.queries_with_labels
        for query in read(self.collection):
            labels = one_a_pair(query, judges)
            self._count(labels, judges)
            lines = self._triple(query, labels, judges) if whole else self._qrels(query, labels, judges)
            if lines:
                self.rows += len(lines)
                self.queries += 1
            yield b"".join(lines)
            if self._on_progress:
                self._on_progress(self._queries_in_ledger, total)

    def _counting(self, snapshot: Snapshot) -> dict[int, JudgeRow]:
        """The judges whose labels count in this export."""
        judges = chosen_judges(snapshot.judges(), self._judge, lambda: snapshot.judges_of(self.collection))
        if self.kind != TRIPLES or not self._rules.without_stage_scores:
            return judges
        independent = {no: judge for no, judge in judges.items() if not leans_on_stage_scores(judge.identity)}
        if judges and not independent:
            raise InputError(
                "every label asked for leans on the retrieval stages' scores: choose another judge with --judge, or"
                " set sink.without_stage_scores to false"
            )
        return independent

    def _count(self, labels: Mapping[str, Label], judges: Mapping[int, JudgeRow]) -> None:
        self._queries_in_ledger += 1
        for label in labels.values():
            self._judges_used[label.judge_no] = judges[label.judge_no]
            self._generations.setdefault(label.judge_no, set()).add(label.generation)
            if label.grade is None:
                self.missing[str(label.missing_reason)] += 1
            else:
                self._grades[label.grade] += 1

    def _triple(
        self, query: LabelledQuery, labels: Mapping[str, Label], judges: Mapping[int, JudgeRow]
    ) -> list[bytes]:
        verdicts = mine(judged_passages(query, labels, judges, self._rules), self._rules)
        positives = [verdict for verdict in verdicts if verdict.role == POSITIVE]
        negatives = [verdict for verdict in verdicts if verdict.role == NEGATIVE]
        if not positives or not negatives:
            return []
        self._train_on(positives, POSITIVES, labels, judges)
        self._train_on(negatives, NEGATIVES, labels, judges)
        return [orjson.dumps(triple(query, positives, negatives), option=orjson.OPT_APPEND_NEWLINE)]

    def _train_on(
        self, verdicts: Sequence[Verdict], use: str, labels: Mapping[str, Label], judges: Mapping[int, JudgeRow]
    ) -> None:
        for verdict in verdicts:
            label = labels[verdict.judged.candidate.passage.passage_id]
            judge = judges[label.judge_no]
            self._usage.add(judge, label, (use,))
            self._usage.require_fit(judge, label, use)

    def _qrels(
        self, query: LabelledQuery, labels: Mapping[str, Label], judges: Mapping[int, JudgeRow]
    ) -> list[bytes]:
        lines = []
        for label in labels.values():
            if label.grade is not None:
                self._usage.add(judges[label.judge_no], label, USES)
                grade = label.grade - (label.min_grade or 0)
                lines.append(f"{query.query_id} 0 {label.passage_id} {grade}\n".encode())
        return lines


def export_bytes(
    ledger: Ledger, collection: str, kind: str, *, rules: MiningRules | None = None, judge: str | None = None
) -> Iterator[bytes]:
    """The export's bytes in pieces; see `Export` for counts and errors."""
    return Export(ledger, collection, kind, rules=rules, judge=judge).chunks()


def export_file(
    ledger: Ledger,
    collection: str,
    kind: str,
    path: Path,
    *,
    rules: MiningRules | None = None,
    judge: str | None = None,
    report: Report = NO_REPORT,
    unqualified: bool = False,
    allow_empty: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes `path` and `<path>.manifest.json`, each whole or not at all, and returns the manifest.

    The file is put in place before its manifest: where a crash falls between the two, the old manifest's
    sha256 does not match, which says so.

    Raises:
        InputError: with `allow_empty` False, an export without a line; nothing is written then. See also
            `Export.chunks`.
        BackendUnavailable: the folder cannot be written, or the disk is full.
    """
    export = Export(
        ledger,
        collection,
        kind,
        rules=rules,
        judge=judge,
        report=report,
        unqualified=unqualified,
        on_progress=on_progress,
    )
    try:
        with AtomicFiles() as files:
            target = files.open(path)
            for chunk in export.chunks():
                target.write(chunk)
            if not export.rows and not allow_empty:
                raise InputError(_why_empty(export))
            manifest = export.manifest()
            sidecar = files.open(path.with_name(path.name + ".manifest.json"))
            sidecar.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
            files.commit()
    except OSError as error:
        raise BackendUnavailable(f"cannot write {path}: {error.strerror}; nothing was changed there") from error
    return manifest


def _why_empty(export: Export) -> str:
    manifest = export.manifest()
    missing = ", ".join(f"{count} {reason}" for reason, count in manifest["missing"].items()) or "none"
    graded = sum(manifest["grades"].values())
    wanted = "no query has a positive and a hard negative" if export.kind == TRIPLES else "no judgment has a grade"
    return (
        f"nothing to export as {export.kind}: {wanted} among {manifest['ledger']['queries']} queries of collection"
        f" {export.collection} ({graded} graded judgments; missing: {missing}). Feed more queries"
        + (", or raise sink.negative_threshold" if export.kind == TRIPLES else "")
    )


def _describe(judge: JudgeRow, generations: set[int]) -> dict[str, Any]:
    return {"judge": judge.judge_hash, **asdict(judge.identity), "generations": sorted(generations)}


def _describe_rules(rules: MiningRules) -> dict[str, Any]:
    return {**asdict(rules), "relevant_grades": dict(sorted(rules.relevant_grades.items()))}
