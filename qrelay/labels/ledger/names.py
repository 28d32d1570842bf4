"""What the ledger calls a query's passages: told where a document is named for a passage, or the other way round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.bulk import in_chunks
from qrelay.labels.ledger.packing import unpack
from qrelay.naming import document_of, examples

"""Values in one statement: databases limit the parameters of a statement."""


@dataclass(frozen=True, slots=True)
class Names:
    """One query's candidates. documents: passage_id -> document; judged: the passages that a judge was asked about,
    missing judgments included."""

    documents: Mapping[str, str]
    judged: frozenset[str] = frozenset()

    def judged_of(self, document: str) -> list[str]:
        """The judged passages of a document, by passage_id."""
        return sorted(each for each in self.judged if self.documents.get(each, document_of(each)) == document)

    def a_document(self, identifier: str) -> str:
        """That the id is a document's of which passages were retrieved, with their ids; empty where it is not."""
        passages = sorted(each for each, document in self.documents.items() if document == identifier)
        if identifier in self.documents or not passages:
            return ""
        return f"{identifier!r} is a document, and its passages are {examples(passages)}: name a passage"

    def no_passage(self, identifier: str) -> str:
        """The same, and of an id that nobody retrieved why its form is no passage's; empty where it may name one."""
        numbered = bool(self.documents) and all(map(_numbered, self.documents))
        if identifier in self.documents or _numbered(identifier) or not numbered:
            return self.a_document(identifier)
        known = examples(sorted(self.documents))
        unknown = f"{identifier!r} is no passage_id, as {known} are: if it is a document, name a passage of it"
        return self.a_document(identifier) or unknown

    def no_document(self, identifier: str) -> str:
        """Why the id names no document but a passage; empty where it may name a document."""
        if identifier in self.documents.values() or identifier not in self.documents:
            return ""
        return f"{identifier!r} is a passage of the document {self.documents[identifier]!r}: name the document"


def names_of(
    connection: sa.Connection, numbers: Sequence[int], *, judged: bool = False
) -> Iterator[tuple[int, Names]]:
    """(query_no, names) of each of these queries; which passages were judged only with `judged`."""
    sets, judgments = schema.candidate_sets.c, schema.judgments.c
    for some in in_chunks(numbers):
        asked: dict[int, set[str]] = {}
        chosen = sa.select(judgments.query_no, judgments.passage_id).where(judgments.query_no.in_(some)).distinct()
        for number, passage_id in connection.execute(chosen) if judged else ():
            asked.setdefault(number, set()).add(passage_id)
        rows = connection.execute(sa.select(sets.query_no, sets.packed).where(sets.query_no.in_(some)))
        for number, packed in rows:
            document = unpack(packed)
            pairs = zip(document["passage_id"], document["doc_id"], strict=True)
            yield number, Names(dict(pairs), frozenset(asked.get(number, ())))


def _numbered(identifier: str) -> bool:
    return document_of(identifier) != identifier
