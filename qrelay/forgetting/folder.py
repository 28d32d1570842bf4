"""Files of the data folder that hold the queries: training data, frozen sets, reports and samples to grade.

A row about a query is left out of JSONL and tables; in reports its text is replaced. Each file is whole before and
after. Every other file that holds a text is named, and stays: an export, a backup, a log, a version of a model.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qrelay.errors import MalformedInput
from qrelay.files import write_atomic
from qrelay.forgetting.finder import Finder
from qrelay.formats.lines import all_lines
from qrelay.models.home import hash_file
from qrelay.parsing import json_document

OURS: Final = ("training", "rounds", "reports", "to-grade")
"""Folders whose files are working copies of the installation."""
_NOT_HERE: Final = ("index", "corpora", "nats", "feed", "run", ".converted")
"""Folders of documents, and of stores that have their own way."""
_DOCUMENTS: Final = "corpus.jsonl"
_ROWS: Final = (".jsonl", ".tsv")
_TEXTS: Final = (".json", ".html", ".md", ".txt", ".yaml", ".csv", ".log", "")
_SET: Final = "set.json"
"""Of a frozen evaluation set: what it says of itself, with the hashes of its files."""


@dataclass(slots=True)
class Files:
    """rewritten: file -> rows left out, or texts replaced. named: those that hold a text and stay."""

    rewritten: dict[Path, int] = field(default_factory=dict)
    named: list[Path] = field(default_factory=list)


def forget_files(data_dir: Path, finder: Finder, apart: set[Path], *, dry_run: bool) -> Files:
    """See the module. apart: files that are stores of their own."""
    done = Files()
    if not finder.texts:
        return done
    for path in _files(data_dir, apart):
        ours = path.relative_to(data_dir).parts[0] in OURS or _frozen(path) is not None
        if count := _holds(path, finder, ours):
            if ours and (dry_run or _rewritten(path, finder)):
                done.rewritten[path] = count
            else:
                done.named.append(path)
    return done


def _files(data_dir: Path, apart: set[Path]) -> Iterator[Path]:
    for path in sorted(data_dir.rglob("*")):
        if path.relative_to(data_dir).parts[0] in _NOT_HERE or path.is_symlink() or not path.is_file():
            continue
        if path.resolve() not in apart and not path.name.startswith(_DOCUMENTS):
            yield path


def _frozen(path: Path) -> Path | None:
    """The frozen set that a file belongs to."""
    return next((each for each in (path.parent, path.parent.parent) if (each / _SET).is_file()), None)


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _holds(path: Path, finder: Finder, ours: bool) -> int:
    """How many rows or places of the file hold a text. What is damaged is looked through as it is."""
    try:
        if _kind(path) in _ROWS:
            return sum(map(finder.line, all_lines(path)))
        if ours and path.suffix in _TEXTS:
            return finder.without(_text(path))[1]
        if path.suffix == ".gz":
            return int(any(map(finder.loosely, all_lines(path))))
        if path.suffix == ".parquet":
            return _in_table(path, finder)
    except MalformedInput:
        pass
    return int(_anywhere(path, finder))


def _anywhere(path: Path, finder: Finder) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return finder.within(content)


def _in_table(path: Path, finder: Finder) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = [each.name for each in pq.read_schema(path) if pa.types.is_string(each.type)]
        batches = pq.ParquetFile(path).iter_batches(columns=names)
        return sum(any(map(finder.equals, row.values())) for batch in batches for row in batch.to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedInput(f"{path} is no Parquet file: {error}") from error


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")


def _rewritten(path: Path, finder: Finder) -> bool:
    """False: it is damaged, and stays as it is."""
    try:
        _rewrite(path, finder)
    except MalformedInput:
        return False
    return True


def _rewrite(path: Path, finder: Finder) -> None:
    if _kind(path) not in _ROWS:
        write_atomic(path, finder.without(_text(path))[0].encode(errors="surrogateescape"))
        return
    rows = list(all_lines(path))
    content = _packed(path, [row for row in rows if not finder.line(row)])
    if folder := _frozen(path):  # before the rows go: a kill leaves them to be found by the next run
        _thin(folder, {_id(row) for row in rows if finder.line(row)})
        _seal(folder, path, content)
    write_atomic(path, content)


def _packed(path: Path, rows: Iterable[bytes]) -> bytes:
    content = b"".join(row + b"\n" for row in rows)
    return gzip.compress(content, mtime=0) if path.suffix == ".gz" else content


def _id(row: bytes) -> str:
    try:
        return str(json_document(row).get("_id", ""))
    except (ValueError, AttributeError):
        return ""


def _thin(folder: Path, query_ids: set[str]) -> None:
    """A frozen set's judgments without those of these queries."""
    for path in sorted(folder.glob("qrels/*.tsv*")):
        rows = (row for row in all_lines(path) if row.partition(b"\t")[0].decode(errors="replace") not in query_ids)
        write_atomic(path, _packed(path, rows))


def _seal(folder: Path, path: Path, content: bytes) -> None:
    """The set's hashes are those of its files with this content: it is another set now, and says so by its hash."""
    described = folder / _SET
    try:
        told = json_document(described.read_bytes())
        hashed = {folder / name: hash_file(folder / name) for name in told.get("files") or ()}
    except (ValueError, AttributeError, TypeError, OSError) as error:
        raise MalformedInput(
            f"{described} is damaged ({error}): restore its folder or remove it, then go on"
        ) from error
    if hashed:
        hashed[path] = hashlib.sha256(content).hexdigest()
        told["files"] = {each.relative_to(folder).as_posix(): value for each, value in hashed.items()}
        write_atomic(described, json.dumps(told, indent=1, ensure_ascii=False) + "\n")
