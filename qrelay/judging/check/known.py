"""Pairs known to be relevant, and what became of their labels.

A file of them has one pair a line: TREC qrels (query_id 0 id grade), BEIR's qrels, a TSV under a header, or two
columns without one, separated by a tab. The query is given by its id or its whole text, the answer by a passage's id
or its document's: a document is called relevant where one of its judged passages is.

    header   query_id, query-id or query; passage_id, corpus-id, doc_id or id; where there are grades, grade or score
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qrelay.errors import MalformedInput
from qrelay.formats.annotated_pairs import text_lines
from qrelay.judging.check.figures import share
from qrelay.models.registry.ledgerside import LedgerPair, LedgerQuery

_QUERY: Final = ("query_id", "query-id", "query")
_ANSWER: Final = ("passage_id", "corpus-id", "doc_id", "id")
_GRADE: Final = ("grade", "score")
_NEGATIVE: Final = ("hard", "easy")
_SHOWN: Final = 10
FILE: Final = "file"
PEOPLE: Final = "people"


def read_known(path: Path, relevant_from: int = 1) -> dict[str, list[str]]:
    """Query (id or text) -> ids of its known answers. Lines with a grade below `relevant_from` are left out.

    Raises:
        MalformedInput: the file cannot be read, is none of the formats, or has a line that does not hold.
    """
    known: dict[str, list[str]] = {}
    lines = [(number, line) for number, line in enumerate(text_lines(path), 1) if line.strip()]
    columns, separator, first = _format(path, lines[0][1] if lines else "")
    for number, line in lines[first:]:
        values = line.split(separator)
        if len(values) != columns["of"]:
            raise MalformedInput(f"{path}:{number}: {len(values)} fields, the first line has {columns['of']}")
        grade = values[columns["grade"]].strip() if "grade" in columns else str(relevant_from)
        if not grade.lstrip("-").isdecimal() and grade:
            raise MalformedInput(f"{path}:{number}: the grade {grade[:40]!r} is no integer")
        if grade and int(grade) >= relevant_from:
            known.setdefault(values[columns["query"]].strip(), []).append(values[columns["answer"]].strip())
    return known


def _format(path: Path, head: str) -> tuple[dict[str, int], str | None, int]:
    """(positions of query, answer and grade, and `of` how many; the separator; how many lines are the header)."""
    names = [name.strip() for name in head.split("\t")]
    found = {
        what: names.index(name)
        for what, known in (("query", _QUERY), ("answer", _ANSWER), ("grade", _GRADE))
        if (name := next((each for each in known if each in names), None))
    }
    if {"query", "answer"} <= found.keys():
        return {**found, "of": len(names)}, "\t", 1
    if len(names) == 2:
        return {"query": 0, "answer": 1, "of": 2}, "\t", 0
    if len(head.split()) == 4:
        return {"query": 0, "answer": 2, "grade": 3, "of": 4}, None, 0
    raise MalformedInput(
        f"{path}:1: give TREC qrels (query_id 0 id grade), a TSV under a header with {_QUERY[0]} and {_ANSWER[0]}, "
        "or two columns, query and id, separated by a tab"
    )


@dataclass
class KnownAnswers:
    """`wanted`: see `read_known`; None: what people's overrides call relevant."""

    wanted: Mapping[str, Iterable[str]] | None
    counts: Counter[str] = field(default_factory=Counter)
    _refused: list[bool] = field(default_factory=list)
    """Of each known answer with a grade: whether it is called not relevant."""
    _examples: list[dict[str, Any]] = field(default_factory=list)

    def add(self, query: LedgerQuery) -> None:
        """What the ledger says of this query's known answers."""
        for answer, pairs in self._answers(query):
            self.counts["looked_up"] += 1
            labels = [pair.labels.get(pair.counts) for pair in pairs]
            if not pairs or not any(labels):
                self.counts["missing" if pairs else "not_judged"] += 1
                continue
            refused = not any(label.relevant for label in labels if label)
            self._refused.append(refused)
            if refused:
                mined = next((role for role in _NEGATIVE if any(pair.mined == role for pair in pairs)), "")
                self.counts[mined] += 1
                p = max(label.p_relevant for label in labels if label)
                self._examples.append({"query_id": query.query_id, "id": answer, "p": p, "mined": mined})

    def _answers(self, query: LedgerQuery) -> Iterator[tuple[str, list[LedgerPair]]]:
        if self.wanted is None:
            yield from ((pair.passage_id, [pair]) for pair in query.pairs if pair.person)
            return
        named = {key.strip() for key in (query.query_id, query.text)} & self.wanted.keys()
        for answer in dict.fromkeys(each for key in sorted(named) for each in self.wanted[key]):
            exact = [pair for pair in query.pairs if pair.passage_id == answer]
            yield answer, exact or [pair for pair in query.pairs if pair.doc_id == answer]

    def result(self) -> dict[str, Any]:
        """source; known: pairs given (of people: found); looked_up: of a query that the ledger holds; not_judged,
        missing: of those; graded; refused: called not relevant, with its share; hard, easy: that an export would
        write as negatives; examples, those that it would write first."""
        refused = self._refused
        self._examples.sort(key=lambda each: ((*_NEGATIVE, "").index(each["mined"]), each["p"]))
        given = None if self.wanted is None else sum(len(set(each)) for each in self.wanted.values())
        return {
            "source": PEOPLE if self.wanted is None else FILE,
            "known": self.counts["looked_up"] if given is None else given,
            **{name: self.counts[name] for name in ("looked_up", "not_judged", "missing", "hard", "easy")},
            "graded": len(refused),
            "refused": sum(refused),
            "share": share(refused),
            "examples": self._examples[:_SHOWN],
        }
