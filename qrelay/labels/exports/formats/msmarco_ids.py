"""MS MARCO's triples as ids (its qidpidtriples.train.tsv): query_id, the positive's passage_id, the negative's; in
the order of the lines of `msmarco.py`, from the same ledger line by line the same triples.
"""

from __future__ import annotations

from collections.abc import Iterator

from qrelay.labels.examples import Example


def lines(item: Example) -> Iterator[bytes]:
    """The query's pairs."""
    for positive, negative in item.pairs():
        ids = (item.name_of(each.passage_id) for each in (positive, negative))
        yield ("\t".join((item.query.query_id, *ids)) + "\n").encode()
