"""Files of the data folder that hold the queries: training data, frozen sets, reports and samples to grade.

A row whose query field is the text, and whose id or collection is the query's, is left out of JSONL and tables; in
reports the text is replaced. Each file is whole before and after, with its mode and owner. Every other file that
holds a text is named, and stays: an export, a backup, a log, a model's files, a job's notes, rows that do not say
whose they are.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from qrelay.errors import MalformedInput
from qrelay.files import AtomicFiles
from qrelay.forgetting.finder import Finder
from qrelay.formats.lines import all_lines
from qrelay.models.home import hash_file
from qrelay.parsing import json_document

_TRAINING: Final = "training"
_ROUNDS: Final = "rounds"
_REPORTS: Final = "reports"
OURS: Final = (_TRAINING, _ROUNDS, _REPORTS, "to-grade")
"""Folders whose files are working copies of the installation."""
_NOT_HERE: Final = ("index", "corpora", "nats", "feed", "run", ".converted")
"""Folders of documents, and of stores that have their own way."""
_MACHINES: Final = ("model", "checkpoints", "checkpoint-*")
"""Folders that are never rewritten: models and what becomes one."""
_NOTES: Final = ("job.json", "result.json", "summary.json", "rounds*.json", "set.json", "*.manifest.json",
                 "tokenizer*")  # fmt: skip
"""Files that are never rewritten: they steer the installation."""
_WEIGHTS: Final = (".safetensors", ".gguf", ".bin", ".npy", ".npz", ".pt", ".faiss", ".onnx")
_DOCUMENTS: Final = "corpus.jsonl"
_ROWS: Final = (".jsonl", ".tsv")
_SET: Final = "set.json"
"""Of a frozen evaluation set: what it says of itself, with the hashes of its files."""


@dataclass(slots=True)
class Files:
    """rewritten: file -> rows left out, or texts replaced. named: those that hold a text and stay."""

    rewritten: dict[Path, int] = field(default_factory=dict)
    named: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Change:
    """A file without the queries: how many rows or texts go, its content, whether that holds a text of somebody
    else, and the ids of the rows."""

    count: int
    content: bytes
    rest: bool
    ids: frozenset[str] = frozenset()


def forget_files(data_dir: Path, finder: Finder, apart: set[Path], *, dry_run: bool) -> Files:
    """See the module. apart: files that are stores of their own. A file that vanishes meanwhile is passed over."""
    done = Files()
    for path in _files(data_dir, apart) if finder.texts else ():
        with suppress(FileNotFoundError):
            _file(data_dir, path, finder, done, dry_run)
    return done


def _file(data_dir: Path, path: Path, finder: Finder, done: Files, dry_run: bool) -> None:
    try:
        change = _without(data_dir, path, finder)
        if change.count and not dry_run:
            _write(path, change)
        if change.count:
            done.rewritten[path] = change.count
        if change.rest:
            done.named.append(path)
    except MalformedInput:  # it is damaged, and stays as it is
        if _anywhere(path, finder):
            done.named.append(path)


def _files(data_dir: Path, apart: set[Path]) -> Iterator[Path]:
    for path in sorted(data_dir.rglob("*")):
        if path.relative_to(data_dir).parts[0] in _NOT_HERE or path.is_symlink() or not path.is_file():
            continue
        if path.suffix not in _WEIGHTS and path.resolve() not in apart and not path.name.startswith(_DOCUMENTS):
            yield path


def _frozen(path: Path) -> Path | None:
    """The frozen set that a file belongs to."""
    return next((each for each in (path.parent, path.parent.parent) if (each / _SET).is_file()), None)


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix


def _without(data_dir: Path, path: Path, finder: Finder) -> _Change:
    """What the file is without the queries. Raises MalformedInput: it is damaged."""
    parts = path.relative_to(data_dir).parts
    frozen, ours = _frozen(path), parts[0] in OURS
    if any(fnmatch(each, name) for each in parts[:-1] for name in _MACHINES):
        frozen, ours = None, False
    if any(fnmatch(path.name, name) for name in _NOTES):
        frozen, ours = None, False
    if (ours and _kind(path) in _ROWS) or (frozen and path.name.startswith("queries.jsonl")):
        return _rows(path, finder, _collection(data_dir, parts, frozen))
    if ours and parts[0] == _REPORTS and path.suffix in (".json", ".html"):
        return _report(path, finder)
    return _Change(0, b"", _holds(path, finder))


def _collection(data_dir: Path, parts: tuple[str, ...], frozen: Path | None) -> str:
    """The collection of what lies in a folder, as far as the folder tells; else ""."""
    if parts[0] == _ROUNDS and len(parts) > 2:
        return parts[1]
    told = frozen / _SET if frozen else data_dir / _TRAINING / parts[1] / "job.json"
    if not frozen and parts[0] != _TRAINING:
        return ""
    try:
        return str(json_document(told.read_bytes()).get("collection") or "")
    except (ValueError, AttributeError, OSError):
        return ""


def _rows(path: Path, finder: Finder, told: str) -> _Change:
    lines = list(all_lines(path))
    queries = ("text",) if path.name.startswith("queries.") else ()
    rows = map(_object, lines) if _kind(path) == ".jsonl" else _table(lines)
    mine = [finder.asked(row, told, *queries) for row in rows]
    kept = [line for line, gone in zip(lines, mine, strict=True) if not gone]
    ids = frozenset(_id(line) for line, gone in zip(lines, mine, strict=True) if gone)
    return _Change(sum(mine), _packed(path, kept), any(map(finder.alone, kept)), ids)


def _object(line: bytes) -> Any:
    try:
        return json_document(line)
    except ValueError:
        return None


def _table(lines: list[bytes]) -> Iterator[dict[str, str]]:
    """The rows of a table by the names of its header."""
    split = [line.decode(errors="surrogateescape").rstrip("\r").split("\t") for line in lines]
    return (dict(zip(split[0], fields, strict=False)) for fields in split)


def _report(path: Path, finder: Finder) -> _Change:
    data = path.read_bytes()
    if path.suffix == ".html":
        content, count = finder.page(data.decode(errors="surrogateescape"))
        written = content.encode(errors="surrogateescape")
    else:
        try:
            document, count = finder.values(json_document(data))
        except ValueError as error:
            raise MalformedInput(f"{path} is no JSON: {error}") from error
        written = json.dumps(document, indent=2, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
    return _Change(count, written, finder.alone(written if count else data))


def _holds(path: Path, finder: Finder) -> bool:
    if path.suffix == ".gz":
        return any(map(finder.within, all_lines(path)))
    return _in_table(path, finder) if path.suffix == ".parquet" else _anywhere(path, finder)


def _anywhere(path: Path, finder: Finder) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return finder.within(content)


def _in_table(path: Path, finder: Finder) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(path).iter_batches()
        rows = (row for batch in batches for row in batch.to_pylist())
        return any(finder.equals(each) for row in rows for each in _strings(row))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedInput(f"{path} is no Parquet file: {error}") from error


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                yield text
            case dict() as fields:
                waiting += fields.values()
            case list() | tuple() as items:
                waiting += items


def _write(path: Path, change: _Change) -> None:
    if folder := _frozen(path):  # before the rows go: a kill leaves them to be found by the next run
        _thin(folder, change.ids)
        _seal(folder, path, change.content)
    _replace(path, change.content)


def _replace(path: Path, content: bytes) -> None:
    """Writes the file anew, whole or not at all, with the mode and, where that is permitted, the owner it had."""
    had = path.stat()
    with AtomicFiles() as files:
        file = files.open(path)
        with suppress(PermissionError):
            os.fchown(file.fileno(), had.st_uid, had.st_gid)
        os.fchmod(file.fileno(), had.st_mode & 0o7777)
        file.write(content)
        files.commit()


def _packed(path: Path, rows: Iterable[bytes]) -> bytes:
    content = b"".join(row + b"\n" for row in rows)
    return gzip.compress(content, mtime=0) if path.suffix == ".gz" else content


def _id(row: bytes) -> str:
    try:
        return str(json_document(row).get("_id", ""))
    except (ValueError, AttributeError):
        return ""


def _thin(folder: Path, query_ids: frozenset[str]) -> None:
    """A frozen set's judgments without those of these queries."""
    for path in sorted(folder.glob("qrels/*.tsv*")):
        rows = (row for row in all_lines(path) if row.partition(b"\t")[0].decode(errors="replace") not in query_ids)
        _replace(path, _packed(path, rows))


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
        _replace(described, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
