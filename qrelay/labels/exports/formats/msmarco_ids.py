"""MS MARCO's triples as ids (its qidpidtriples.train.tsv): query_id, the positive's passage_id, the negative's; in
the order of the lines of `msmarco.py`, from the same ledger line by line the same triples.
"""

from __future__ import annotations

from collections.abc import Iterator

from qrelay.labels.exports.item import Item
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.writing import Lines, Output


def open_writer(output: Output, options: Options) -> Lines:
    """A line a (positive, negative)."""
    return Lines(output, options, ".tsv", lines)


def lines(item: Item) -> Iterator[bytes]:
    """The query's pairs."""
    for positive, negative in item.pairs():
        ids = (item.name_of(each.passage_id) for each in (positive, negative))
        yield ("\t".join((item.query.query_id, *ids)) + "\n").encode()
