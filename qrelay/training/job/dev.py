"""The dev queries of a job as training measures itself on them: an export's judged passages are the corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qrelay.formats.beir import Collection
from qrelay.formats.lines import BadRecord, byte_lines, json_value, parsed
from qrelay.text import passage_text

_Judged = list[tuple[str, str, bool]]
"""(passage id, text as a model reads it, whether it is relevant)."""


def dev_set(path: Path) -> Collection | None:
    """From an export of format `triples` or `labels`; None where no query has a relevant passage.

    Raises:
        MalformedInput: a line that is none of an export; it is named.
    """
    queries: dict[str, str] = {}
    corpus: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for _, (query_id, query, judged) in parsed(path, byte_lines(path), _row):
        if not any(relevant for _, _, relevant in judged):
            continue
        queries[query_id] = query
        corpus |= {passage_id: text for passage_id, text, _ in judged}
        qrels[query_id] = {passage_id: int(relevant) for passage_id, _, relevant in judged}
    return Collection(list(corpus), list(corpus.values()), queries, qrels) if queries else None


def _row(line: bytes) -> tuple[str, str, _Judged]:
    row = json_value(line)
    try:
        judged = [
            (str(each["passage_id"]), passage_text(each["title"], each["text"]), so) for each, so in _judged(row)
        ]
        return str(row["query_id"]), str(row["query"]), judged
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRecord(f"no line of an export ({error!r}): export again") from error


def _judged(row: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Passages with whether they are relevant."""
    if "passages" in row:
        yield from ((each, each["role"] == "positive") for each in row["passages"])
        return
    for role in ("positives", "negatives"):
        yield from ((each, role == "positives") for each in row[role])
