"""The labels of an export: one snapshot of the ledger, read in pages in the order of query ids.

Per query: the judges that are meant, one label a pair (`labels/choice.py`), then the conditions of `where`. Mining
sees all labels, so that a guard does not fall with a positive that `where` leaves out; the conditions then hold for
what it chose. With splits by document or attribute the queries are read twice, first for what belongs together; so
they are where a round's limits leave examples out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import orjson
import sqlalchemy as sa

from qrelay.errors import InputError, InternalError
from qrelay.labels.choice import chosen_judges, describe_judges, independent_judges, one_a_pair
from qrelay.labels.exports import splits
from qrelay.labels.exports.catalogue import EXAMPLES_USE, NO_LABELS, TRAINING
from qrelay.labels.exports.documents import by_document, deciding, documents_of
from qrelay.labels.exports.item import Item
from qrelay.labels.exports.measured import Measured, measured
from qrelay.labels.exports.request import BY_DOCUMENT, Request
from qrelay.labels.exports.spill import Spill
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.people import HUMAN
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery, Snapshot
from qrelay.labels.mining.examples import Example, example_from, judged_passages
from qrelay.labels.mining.mine import mine
from qrelay.labels.mining.rounds import ExampleSize, choose, size_of, taken
from qrelay.labels.mining.rules import Verdict
from qrelay.naming import document_of


class Source:
    """The items of one request from one snapshot."""

    def __init__(self, snapshot: Snapshot, request: Request) -> None:
        """
        Raises:
            UnknownCollection: the ledger holds no query of it.
            InputError: no such judge, or no label left to train on; `since` is beyond the ledger's last change.
        """
        self.total = snapshot.require_collection(request.collection).queries
        self.change_no = snapshot.change_no(request.collection)
        self._snapshot = snapshot
        self._request = request
        self._where = request.parsed_where
        self._judges = self._counting()
        self._chosen: Mapping[str, int] | None = None
        if (request.since or 0) > self.change_no:
            raise InputError(
                f"--since {request.since}: the last change of collection {request.collection} is {self.change_no};"
                " is this the ledger that the former export was made from?"
            )

    def items(self) -> Iterator[Item]:
        """Every query, whatever is left of its labels, by query_id.

        Raises:
            InputError: a scale without a relevant grade.
        """
        wanted, limits = self._request.splits, self._request.limits
        if limits.bounded and self._request.format.use == EXAMPLES_USE:
            self._chosen = choose(self._sizes(), limits)
        with Spill() as spill:
            sides = self._sides(spill) if wanted and wanted.group_by != splits.BY_QUERY else None
            for number, query in enumerate(self._queries()):
                split = ""
                if wanted:
                    side = sides[number] if sides else wanted.of_group(splits.name_of(query.text))
                    split = wanted.names[side]
                yield self._item(query, split)

    def shared(self, item: Item) -> list[bytes]:
        """What keeps this query in one split with others: its text, and what the request groups by."""
        return self._keys(item.query, one_a_pair(item.query, self._judges))

    def relevant(self, label: Label) -> bool:
        """Whether the label says relevant on its scale.

        Raises:
            InputError: its scale has no relevant grade.
        """
        scale, known = self._judges[label.judge_no].identity.scale, self._request.rules.relevant_grades
        if scale not in known:
            raise InputError(f"scale {scale!r} of a judge has no relevant grade: set sink.relevant_grades")
        return label.grade is not None and label.grade >= known[scale]

    def _item(self, query: LabelledQuery, split: str) -> Item:
        use = self._request.format.use
        counting = {} if use == NO_LABELS else one_a_pair(query, self._judges)
        verdicts = self._verdicts(query, counting)
        documents = documents_of(query) if self._request.by == BY_DOCUMENT else {}
        if documents:
            counting = deciding(counting, documents, self._judges, self._request.rules.relevant_grades)
            verdicts = by_document(verdicts, documents, counting)
        meant = {passage_id: label for passage_id, label in counting.items() if self._meant(label)}
        example = self._example(query, verdicts, meant) if use == EXAMPLES_USE else None
        numbers = self._measured(query, meant, example) if self._request.format.measured else {}
        kept = tuple(each for each in verdicts if each.passage_id in meant) if self._request.format.verdicts else ()
        return Item(query, meant, self._judges, split, example, kept, numbers, documents)

    def _verdicts(self, query: LabelledQuery, counting: Mapping[str, Label]) -> list[Verdict]:
        """What mining makes of every passage; nothing for formats that do not ask."""
        wanted, rules = self._request.format, self._request.rules
        if wanted.use != EXAMPLES_USE and not wanted.verdicts:
            return []
        return mine(judged_passages(query, counting, self._judges, rules), rules)

    def _example(self, query: LabelledQuery, verdicts: list[Verdict], meant: Mapping[str, Label]) -> Example | None:
        found = example_from(query, verdicts)
        example = _only(found, meant) if found else None
        if example and self._chosen is not None:
            return taken(example, self._chosen)
        return example

    def _measured(
        self, query: LabelledQuery, meant: Mapping[str, Label], example: Example | None
    ) -> Mapping[str, Measured]:
        if self._request.format.use == EXAMPLES_USE and example is None:
            return {}
        return measured(self._snapshot.connection, self._request.collection, query, meant, self._judges)

    def _sizes(self) -> Iterator[ExampleSize]:
        """Every example's size: what a round's limits choose by."""
        for query in self._queries():
            if example := self._item(query, "").example:
                yield size_of(example)

    def _meant(self, label: Label) -> bool:
        conditions = self._where
        return not conditions.labels or conditions.holds(
            label, relevant=conditions.asks_relevance and self.relevant(label)
        )

    def _queries(self) -> Iterator[LabelledQuery]:
        """Every query that is asked for; with candidates where the format or the splits need them."""
        request, fields = self._request, dict[str, Any]()
        if request.people:
            fields |= {"overrides": True, "relevant_grades": request.rules.relevant_grades}
        if request.since is not None:
            fields["changes"] = request.since, self.change_no
        if self._where.query_id:
            fields["ids"] = [self._where.query_id]
        by_doc = request.splits is not None and request.splits.group_by == splits.BY_DOC
        whole = request.format.candidates or by_doc or request.by == BY_DOCUMENT
        read = self._snapshot.labelled_queries if whole else self._snapshot.queries_with_labels
        return read(request.collection, **fields)

    def _counting(self) -> dict[int, JudgeRow]:
        """The judges whose labels count in this export."""
        request = self._request
        known = self._snapshot.judges()
        judges = chosen_judges(known, request.judge, lambda: self._snapshot.judges_of(request.collection))
        if not request.people:
            judges = {no: judge for no, judge in judges.items() if judge.identity.strategy != HUMAN}
            if request.judge == HUMAN:
                raise InputError("people's decisions count only where they are asked for: add --overrides")
        judges = {no: judge for no, judge in judges.items() if self._named(judge)}
        if not judges and (self._where.judges or self._where.strategies):
            raise InputError(
                f"where: no judge of the ledger fits {request.where!r}; it knows {describe_judges(known)}"
            )
        independent = request.format.use in TRAINING and request.rules.without_stage_scores
        return independent_judges(judges) if independent else judges

    def _named(self, judge: JudgeRow) -> bool:
        """Whether `where` speaks of this judge: a judge must satisfy every one of its terms."""
        return all(judge.judge_hash.startswith(prefix) for prefix in self._where.judges) and all(
            judge.identity.strategy == strategy for strategy in self._where.strategies
        )

    def _sides(self, spill: Spill) -> array[int]:
        """The number of each query's split, in the order in which queries are read."""
        wanted = self._wanted_splits
        groups, count = splits.Groups(spill), 0
        for query in self._queries():
            groups.add(splits.name_of(query.text), self._keys(query, one_a_pair(query, self._judges)))
            count += 1
        return array("B", (wanted.of_group(groups.name(number)) for number in range(count)))

    @cached_property
    def _wanted_splits(self) -> splits.Splits:
        if self._request.splits is None:
            raise InternalError("the splits of an export without splits were asked for")
        return self._request.splits

    def _keys(self, query: LabelledQuery, labels: Mapping[str, Label]) -> list[bytes]:
        found = [splits.text_key(query.text)]
        wanted = self._wanted_splits
        if wanted.attribute:
            value = self._attribute(query.query_id, wanted.attribute)
            found += [splits.key("attribute", value)] if value is not None else []
        elif wanted.group_by == splits.BY_DOC:
            documents = {each.passage.passage_id: each.passage.doc_id for each in query.candidates}
            relevant = [label.passage_id for label in labels.values() if self.relevant(label)]
            # An override may be of a passage that no system found: its document is in its id.
            shared = {documents.get(each, document_of(each)) for each in relevant}
            found += [splits.key("doc", document) for document in sorted(shared)]
        return found

    def _attribute(self, query_id: str, name: str) -> str | None:
        columns = schema.queries.c
        chosen = sa.select(columns.attributes).where(
            columns.collection == self._request.collection, columns.query_id == query_id
        )
        value = orjson.loads(self._snapshot.connection.execute(chosen).scalar_one()).get(name)
        return None if value is None else str(value)


def _only(example: Example, meant: Mapping[str, Label]) -> Example | None:
    """The example with the passages whose label is meant; None where it has no positive or hard negative then."""

    def kept(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
        return tuple(each for each in verdicts if each.passage_id in meant)

    left = replace(example, positives=kept(example.positives), negatives=kept(example.negatives))
    return left if left.positives and any(each.hard for each in left.negatives) else None
