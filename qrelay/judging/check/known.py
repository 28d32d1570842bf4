"""Pairs known to be relevant, and what became of their labels.

A file of them has one pair a line: qrels or a TSV under a header (`qrelay.formats.tables`), or two columns without
one, separated by a tab. The query is given by its id or its whole text, the answer by a passage's id
or its document's: a document is called relevant where one of its judged passages is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qrelay.formats.lines import parsed
from qrelay.formats.tables import grade_of, read_rows
from qrelay.judging.check.figures import share
from qrelay.models.registry.ledgerside import LedgerPair, LedgerQuery

_NEGATIVE: Final = ("hard", "easy")
_SHOWN: Final = 10
FILE: Final = "file"
PEOPLE: Final = "people"


def read_known(path: Path, relevant_from: int = 1) -> dict[str, list[str]]:
    """Query (id or text) -> ids of its known answers. Lines with a grade below `relevant_from` are left out.

    Raises:
        MalformedInput: the file cannot be read, is none of the formats, or has a line that does not hold.
    """

    def answer(fields: Mapping[str, str]) -> tuple[str, str, bool]:
        grade = fields.get("grade", str(relevant_from)).strip()
        counts = bool(grade) and grade_of(grade) >= relevant_from
        return fields["query_id"].strip(), fields["passage_id"].strip(), counts

    known: dict[str, list[str]] = {}
    for _, (query, passage, relevant) in parsed(path, read_rows(path, ("query_id", "passage_id")), answer):
        if relevant:
            known.setdefault(query, []).append(passage)
    return known


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
