"""Corpus readers: a source's name to a stream of documents, one in memory at a time.

| source | what |
|---|---|
| `corpus.jsonl`, `corpus.jsonl.gz`, or a folder that holds one | BEIR: one object a line, `_id title text` |
| `corpus.parquet`, a folder saved by `datasets`, `hf:NAME[:SPLIT[:CONFIG]]` | `formats/datasets.py` |
| `python-docs[:MODULE,…]`, `python-docs:@FILE` | the standard library's own documentation (pydocs.py) |

A record that cannot be used is reported (where, why) and the others continue; a file that cannot be read
any further (absent, truncated) raises, because a part of a corpus must not look like the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from qrelay.errors import MalformedInput
from qrelay.formats.datasets import DOCUMENT_COLUMNS, Columns, is_dataset, read_rows
from qrelay.formats.lines import BadRecord, byte_lines, file_in, json_value
from qrelay.index import pydocs
from qrelay.index.documents import Document, Reject, document_from


def read_corpus(
    source: str, reject: Reject, limit: int | None = None, columns: Columns = DOCUMENT_COLUMNS
) -> Iterator[Document]:
    """The documents of `source`, in its order, at most `limit` of them. columns: where their fields stand.

    Raises:
        MalformedInput: the source is absent, of an unknown kind, lacks a column, or ends early.
        BackendUnavailable: the dataset hub does not answer.
    """
    documents = _open(source, reject, columns)
    return islice(documents, limit) if limit else documents


def _open(source: str, reject: Reject, columns: Columns) -> Iterator[Document]:
    if source == "python-docs" or source.startswith("python-docs:"):
        return pydocs.read_python_docs(source.partition(":")[2])
    path = Path(source)
    if is_dataset(source):
        return _documents(read_rows(source, columns), source, reject, columns)
    if path.is_dir():
        return _open(str(file_in(path, "corpus.jsonl", "corpus.parquet")), reject, columns)
    if not path.exists():
        raise MalformedInput(f"no such corpus: {source}; {_KINDS}")
    if path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz", ".json")):
        return _documents(byte_lines(path), str(path), reject, columns)
    raise MalformedInput(f"{path} is of an unknown kind; {_KINDS}")


_KINDS: Final = (
    "name a .jsonl or .jsonl.gz file (BEIR), a .parquet file, a folder saved by `datasets`, "
    "hf:NAME[:SPLIT[:CONFIG]], or python-docs[:MODULE,…]"
)


def _documents(
    records: Iterable[tuple[int, Any]], source: str, reject: Reject, columns: Columns
) -> Iterator[Document]:
    """The documents among the numbered records; bytes are JSON."""
    for number, record in records:
        where = f"{source}:{number}"
        try:
            found = json_value(record) if isinstance(record, bytes) else record
            document = document_from(columns.record(found), where)
        except BadRecord as error:
            reject(where, str(error))
        else:
            yield document
