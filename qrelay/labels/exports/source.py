"""The examples of an export: one snapshot of the ledger, read in pages in the order of query ids.

Whose labels count, the splits, and what a round's limits leave out. With splits by document or attribute the queries
are read twice, first for what belongs together; so they are where there are limits, first for the sizes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from qrelay.errors import InputError
from qrelay.labels.choice import chosen_judges, describe_judges, independent_judges, one_a_pair, relevant
from qrelay.labels.examples import Example, examples
from qrelay.labels.exports import splits
from qrelay.labels.exports.catalogue import EXAMPLES_USE, NO_LABELS, TRAINING
from qrelay.labels.exports.request import BY_DOCUMENT, Request
from qrelay.labels.exports.spill import Spill
from qrelay.labels.exports.splits import Splits
from qrelay.labels.ledger.precedence import HUMAN
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery, Snapshot
from qrelay.labels.mining.rounds import choose, size_of, taken
from qrelay.naming import document_of


class Source:
    """The examples of one request from one snapshot."""

    def __init__(self, snapshot: Snapshot, request: Request) -> None:
        """
        Raises:
            UnknownCollection: the ledger holds no query of it.
            InputError: no such judge, or no label left to train on; `since` is beyond the ledger's last change.
        """
        self.total = snapshot.require_collection(request.collection).queries
        self.change_no = snapshot.change_no(request.collection)
        self._request = request
        self._judges = _counting(snapshot, request)
        where = request.parsed_where
        self._read = partial(
            examples,
            snapshot,
            request.collection,
            rules=request.rules,
            people=request.people,
            ids=[where.query_id] if where.query_id else None,
            changes=None if request.since is None else (request.since, self.change_no),
        )
        if (request.since or 0) > self.change_no:
            raise InputError(
                f"--since {request.since}: the last change of collection {request.collection} is {self.change_no};"
                " is this the ledger that the former export was made from?"
            )

    def examples(self) -> Iterator[Example]:
        """Every query, whatever is left of its labels, by query_id.

        Raises:
            InputError: a scale without a relevant grade.
        """
        request, kind, wanted = self._request, self._request.format, self._request.splits
        by_document = request.by == BY_DOCUMENT
        read = partial(
            self._read,
            judges={} if kind.use == NO_LABELS else self._judges,
            where=request.parsed_where,
            mined=kind.use == EXAMPLES_USE or kind.verdicts,
            documents=by_document,
            measured=kind.measured,
            candidates=kind.candidates or by_document or (wanted is not None and wanted.group_by == splits.BY_DOC),
        )
        chosen = None
        if request.limits.bounded and kind.use == EXAMPLES_USE:
            chosen = choose((size_of(each) for each in read() if each.positives), request.limits)
        with Spill() as spill:
            sides = self._sides(wanted, spill) if wanted and wanted.group_by != splits.BY_QUERY else None
            for number, example in enumerate(read()):
                split = ""
                if wanted:
                    side = sides[number] if sides else wanted.of_group(splits.name_of(example.query.text))
                    split = wanted.names[side]
                yield replace(example if chosen is None else taken(example, chosen), split=split)

    def shared(self, query: LabelledQuery, wanted: Splits) -> list[bytes]:
        """What keeps this query in one split with others: its text, and what the request groups by."""
        return self._keys(query, one_a_pair(query, self._judges), wanted)

    def _sides(self, wanted: Splits, spill: Spill) -> array[int]:
        """The number of each query's split, in the order in which queries are read."""
        groups, count = splits.Groups(spill), 0
        for each in self._read(judges=self._judges, mined=False, candidates=wanted.group_by == splits.BY_DOC):
            groups.add(splits.name_of(each.query.text), self._keys(each.query, each.labels, wanted))
            count += 1
        return array("B", (wanted.of_group(groups.name(number)) for number in range(count)))

    def _keys(self, query: LabelledQuery, labels: Mapping[str, Label], wanted: Splits) -> list[bytes]:
        found = [splits.text_key(query.text)]
        if wanted.attribute:
            value = query.attribute(wanted.attribute)
            found += [splits.key("attribute", value)] if value is not None else []
        elif wanted.group_by == splits.BY_DOC:
            documents = {each.passage.passage_id: each.passage.doc_id for each in query.candidates}
            grades = self._request.rules.relevant_grades
            named = [each for each, label in labels.items() if relevant(label, self._judges, grades)]
            # An override may be of a passage that no system found: its document is in its id.
            shared = {documents.get(each, document_of(each)) for each in named}
            found += [splits.key("doc", document) for document in sorted(shared)]
        return found


def _counting(snapshot: Snapshot, request: Request) -> dict[int, JudgeRow]:
    """The judges whose labels count in this export."""
    known, where = snapshot.judges(), request.parsed_where
    judges = chosen_judges(known, request.judge, lambda: snapshot.judges_of(request.collection))
    if not request.people:
        judges = {no: judge for no, judge in judges.items() if judge.identity.strategy != HUMAN}
        if request.judge == HUMAN:
            raise InputError("people's decisions count only where they are asked for: add --overrides")
    judges = {no: judge for no, judge in judges.items() if where.names(judge)}
    if not judges and (where.judges or where.strategies):
        raise InputError(f"where: no judge of the ledger fits {request.where!r}; it knows {describe_judges(known)}")
    independent = request.format.use in TRAINING and request.rules.without_stage_scores
    return independent_judges(judges) if independent else judges
