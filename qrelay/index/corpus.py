"""Corpus readers: a source's name to a stream of documents, one in memory at a time.

| source | what |
|---|---|
| `corpus.jsonl`, `corpus.jsonl.gz`, or a folder that holds one | BEIR: one object a line, `_id title text` |
| `corpus.parquet` | the same fields as columns |
| a folder written by `Dataset.save_to_disk` | the same fields; `FOLDER:split` where it holds several |
| `hf:NAME[:SPLIT[:CONFIG]]` | a dataset of the hub, streamed; the split is `train` unless named |
| `python-docs[:MODULE,…]`, `python-docs:@FILE` | the standard library's own documentation (pydocs.py) |

A record that cannot be used is reported (where, why) and the others continue; a file that cannot be read
any further (absent, truncated) raises, because a part of a corpus must not look like the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from qrelay.errors import BackendUnavailable, MalformedInput
from qrelay.formats.lines import BadRecord, byte_lines, file_in, json_value
from qrelay.formats.records import DOCUMENT_IDS, DOCUMENT_TEXTS
from qrelay.index import pydocs
from qrelay.index.documents import Document, Reject, document_from

PARQUET_BATCH_ROWS: Final = 1024
_SAVED_MARKERS: Final = ("state.json", "dataset_dict.json")


def read_corpus(source: str, reject: Reject, limit: int | None = None) -> Iterator[Document]:
    """The documents of `source`, in its order, at most `limit` of them.

    Raises:
        MalformedInput: the source is absent, of an unknown kind, or ends early.
        BackendUnavailable: the dataset hub does not answer.
    """
    documents = _open(source, reject)
    return islice(documents, limit) if limit else documents


def _open(source: str, reject: Reject) -> Iterator[Document]:
    if source == "python-docs" or source.startswith("python-docs:"):
        return pydocs.read_python_docs(source.partition(":")[2])
    if source.startswith("hf:"):
        return _read_hub(source, reject)
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, "", reject)
    if not path.exists():
        folder, _, split = source.rpartition(":")
        if folder and Path(folder).is_dir():
            return _open_folder(Path(folder), split, reject)
        raise MalformedInput(f"no such corpus: {source}; {_KINDS}")
    if path.name.endswith((".jsonl", ".jsonl.gz", ".json.gz", ".json")):
        return _documents(byte_lines(path), str(path), reject)
    if path.suffix == ".parquet":
        return read_parquet(path, reject)
    raise MalformedInput(f"{path} is of an unknown kind; {_KINDS}")


_KINDS: Final = (
    "name a .jsonl or .jsonl.gz file (BEIR), a .parquet file, a folder saved by `datasets`, "
    "hf:NAME[:SPLIT[:CONFIG]], or python-docs[:MODULE,…]"
)


def _open_folder(folder: Path, split: str, reject: Reject) -> Iterator[Document]:
    if any((folder / marker).exists() for marker in _SAVED_MARKERS):
        return _read_saved(folder, split, reject)
    return _open(str(file_in(folder, "corpus.jsonl", "corpus.parquet")), reject)


def _documents(records: Iterable[tuple[int, Any]], source: str, reject: Reject) -> Iterator[Document]:
    """The documents among the numbered records; bytes are JSON."""
    for number, record in records:
        where = f"{source}:{number}"
        try:
            document = document_from(json_value(record) if isinstance(record, bytes) else record, where)
        except BadRecord as error:
            reject(where, str(error))
        else:
            yield document


def read_parquet(path: Path, reject: Reject) -> Iterator[Document]:
    """Documents of a Parquet file, `PARQUET_BATCH_ROWS` rows in memory at a time."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            known = {*DOCUMENT_IDS, *DOCUMENT_TEXTS, "title"}
            columns = [name for name in file.schema_arrow.names if name in known]
            batches = file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=columns)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from _documents(enumerate(rows, 1), str(path), reject)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise MalformedInput(f"{path} cannot be read as Parquet: {error}") from error


def _read_saved(folder: Path, split: str, reject: Reject) -> Iterator[Document]:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever its readers of JSON and Arrow raise
        raise MalformedInput(f"{folder} is not a folder saved by `datasets`, or is damaged: {error!r}") from error
    if isinstance(dataset, datasets.DatasetDict):
        names = sorted(dataset)
        if not split and len(names) > 1:
            raise MalformedInput(f"{folder} holds the splits {', '.join(names)}: name one, {folder}:{names[0]}")
        if split and split not in names:
            raise MalformedInput(f"{folder} has no split {split!r}; it has {', '.join(names)}")
        dataset = dataset[split or names[0]]
    yield from _documents(enumerate(dataset, 1), str(folder), reject)


def _read_hub(source: str, reject: Reject) -> Iterator[Document]:
    import datasets

    name, split, config, *_ = [*source.removeprefix("hf:").split(":"), "", ""]
    try:
        dataset = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        yield from _documents(enumerate(dataset, 1), source, reject)
    except (OSError, ValueError, RuntimeError) as error:
        raise BackendUnavailable(
            f"cannot read {source}: {error}. Check the name, the split and the network, or save the dataset "
            "to a folder elsewhere and give that folder."
        ) from error
