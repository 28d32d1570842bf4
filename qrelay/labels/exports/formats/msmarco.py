"""MS MARCO's triples as texts (its triples.train.small.tsv): query, positive, negative, separated by tabs; a line a
pair of a positive and a negative. TSV has no quoting: every run of white space in a text is one blank.
"""

from __future__ import annotations

from collections.abc import Iterator

from qrelay.labels.examples import Example
from qrelay.labels.exports.formats.collection import one_line
from qrelay.labels.exports.rows import verdict_text


def lines(item: Example) -> Iterator[bytes]:
    """The query's pairs, the best positive and the hardest negative first."""
    for positive, negative in item.pairs():
        texts = item.query.text, verdict_text(positive), verdict_text(negative)
        yield ("\t".join(map(one_line, texts)) + "\n").encode()
