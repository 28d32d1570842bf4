"""A folder in BEIR's layout as a training set: a row a query of qrels/SPLIT.tsv. Its relevant documents are the
positives, those of grade 0 the negatives; so are the negatives of hard_negatives.jsonl where it is there:

    {"qid": "q1", "pos": ["d1"], "neg": {"bm25": ["d2"]}}     # or "neg": ["d2"]

Written back are these two files, and the corpus and the queries as they are; teacher scores, for which qrels have no
place, stand in teacher-scores.tsv (query-id, corpus-id, score).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

import orjson

from qrelay.errors import MalformedInput
from qrelay.formats.beir import qrel_rows
from qrelay.formats.lines import BadRecord, file_in
from qrelay.formats.records import read_records
from qrelay.formats.tables import BEIR_HEADER, tsv_line
from qrelay.formats.training.containers import Numbered, RowWriter, Writable
from qrelay.formats.training.example import Row

HARD: Final = ("hard_negatives.jsonl", "hard-negatives.jsonl")
SCORES: Final = "teacher-scores.tsv"
Open = Callable[[str], Writable]


@dataclass(frozen=True)
class BeirFolder:
    """One split of a folder."""

    source: str
    split: str = "train"
    kind: str = "beir"

    @property
    def corpus(self) -> Path:
        """The file of documents. Raises MalformedInput: there is none."""
        return file_in(Path(self.source), "corpus.jsonl")

    @property
    def queries(self) -> Path:
        """The file of queries. Raises MalformedInput: there is none."""
        return file_in(Path(self.source), f"queries.{self.split}.jsonl", "queries.jsonl")

    @property
    def qrels(self) -> Path:
        """The split's. Raises MalformedInput: there are none."""
        folder = Path(self.source) / "qrels"
        return file_in(folder if folder.is_dir() else Path(self.source), f"{self.split}.tsv", "qrels.tsv")

    @property
    def hard(self) -> Path | None:
        """The file of hard negatives, where there is one."""
        names = chain.from_iterable((name, f"{name}.gz") for name in HARD)
        return next((path for name in names if (path := Path(self.source) / name).is_file()), None)

    def files(self) -> list[Path]:
        """Everything that is read. Raises MalformedInput: something lacks."""
        return [self.qrels, self.corpus, self.queries, *([self.hard] if self.hard else [])]

    def rows(self) -> Numbered:
        """A row a query: its id, ids of positives and negatives, and their grades, None of a hard negative. Raises
        MalformedInput."""
        judged: dict[str, dict[str, int | None]] = {}
        for _, (query_id, doc_id, grade) in qrel_rows(self.qrels):
            judged.setdefault(query_id, {})[doc_id] = grade
        if not judged:
            raise MalformedInput(f"{self.qrels} holds no judgment: give qrels that do")
        for query_id, doc_id in self._hard():
            judged.setdefault(query_id, {}).setdefault(doc_id, None)
        for number, (query_id, grades) in enumerate(judged.items(), 1):
            yield number, _row(query_id, grades)

    def _hard(self) -> Iterator[tuple[str, str]]:
        if self.hard:
            for _, (query_id, doc_ids) in read_records(self.hard, _hard_fields):
                yield from ((query_id, doc_id) for doc_id in doc_ids)

    def writer(self, opened: Open, first: Row) -> RowWriter:  # noqa: ARG002
        """Writes the folder's files, each opened by its name."""
        return _Folder(self, opened)


def _row(query_id: str, grades: Mapping[str, int | None]) -> dict[str, Any]:
    yes = {doc_id: grade for doc_id, grade in grades.items() if (grade or 0) > 0}
    no = {doc_id: grade for doc_id, grade in grades.items() if (grade or 0) <= 0}
    return {
        "query_id": query_id,
        "positive_ids": list(yes),
        "positive_grades": list(yes.values()),
        "negative_ids": list(no),
        "negative_grades": list(no.values()),
    }


def _hard_fields(record: object) -> tuple[str, list[str]]:
    if not isinstance(record, dict):
        raise BadRecord("expected an object with qid and neg")
    query_id = record.get("qid", record.get("query_id"))
    found = record.get("neg", record.get("negatives"))
    lists: list[Any] = list(found.values()) if isinstance(found, dict) else [found]
    if not isinstance(query_id, str | int) or not all(isinstance(each, list) for each in lists):
        raise BadRecord("expected qid, and neg: a list of ids, or such a list a system")
    return str(query_id), list(dict.fromkeys(str(each) for each in chain.from_iterable(lists)))


class _Folder:
    """qrels, hard negatives and scores; corpus and queries are copied."""

    def __init__(self, folder: BeirFolder, opened: Open) -> None:
        for path in (folder.corpus, folder.queries):
            sink = opened(path.name)
            with path.open("rb") as file:
                while part := file.read(1 << 20):
                    sink.write(part)
        self._qrels = opened(f"qrels/{folder.split}.tsv")
        self._scores = opened(SCORES)
        self._hard = opened(HARD[0]) if folder.hard else None
        for table in (self._qrels, self._scores):
            table.write(tsv_line(BEIR_HEADER))

    def write(self, row: Mapping[str, Any], /) -> None:
        query_id, hard = row["query_id"], []
        for doc_id, grade in zip(row["positive_ids"], row["positive_grades"], strict=True):
            self._qrels.write(tsv_line((query_id, doc_id, str(grade if (grade or 0) > 0 else 1))))
        for doc_id, grade in zip(row["negative_ids"], row["negative_grades"], strict=True):
            if grade is None:
                hard.append(doc_id)
            else:
                self._qrels.write(tsv_line((query_id, doc_id, str(grade))))
        if hard and self._hard:
            self._hard.write(orjson.dumps({"qid": query_id, "neg": hard}, option=orjson.OPT_APPEND_NEWLINE))
        for side in ("positive", "negative"):
            scores = row.get(f"{side}_scores") or []
            for doc_id, score in zip(row[f"{side}_ids"], scores, strict=False):
                if score is not None:
                    self._scores.write(tsv_line((query_id, doc_id, str(score))))

    def close(self) -> None:
        """Everything is written."""
