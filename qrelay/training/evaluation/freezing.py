"""Making a frozen evaluation set of a collection in BEIR's layout, or of a folder of `qrelay export beir`.

The same files, sample and seed give the same bytes, wherever and whenever they are frozen.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from qrelay.errors import ConfigError, InputError
from qrelay.files import write_atomic
from qrelay.formats.beir import Collection, read_collection
from qrelay.formats.lines import file_in
from qrelay.formats.records import document_fields, read_records
from qrelay.models.home import hash_file
from qrelay.training.evaluation.frozen import SET_FILE, FrozenSet, Source, data_files
from qrelay.training.evaluation.manifests import JudgeFacts, manifest_in

_PEOPLE: Final = "human"
"""The strategy of people in an export's manifest."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose labels they are: see `qrelay.training.evaluation.frozen`."""

    source: Source
    judges: tuple[JudgeFacts, ...] = ()
    relevant_from: int = 1


def labels_of(source: Source | None, judges: Sequence[JudgeFacts], corpus: Path, relevant_from: int | None) -> Labels:
    """What was said about the labels, completed by the manifest of an export where `corpus` is such a folder.

    Raises:
        ConfigError: nothing says whose labels they are, who judged, or what is relevant; or the manifest says
            otherwise.
    """
    told = manifest_in(corpus) if corpus.is_dir() else None
    known = told.judges if told else ()
    machines = [each for each in known if each["strategy"] != _PEOPLE]
    if machines and source not in (None, "judge"):
        raise ConfigError(f"the export's manifest names the judge {machines[0]['model']}: say --labels judge")
    found = source or ("judge" if machines else "human" if known else None)
    if found is None:
        raise ConfigError("whose labels are these? Give --labels human, gold or judge")
    named = (*judges, *known) if found == "judge" else ()
    if found == "judge" and not named:
        raise ConfigError(
            "--labels judge: name the model that judged with --judge-model, or freeze an export's folder"
        )
    return Labels(found, named, relevant_from or (told.relevant_from if told else 1))


def collection_of(corpus: Path) -> str:
    """The collection that the folder is an export of; "" where it is none, or does not say."""
    told = manifest_in(corpus) if corpus.is_dir() else None
    return told.collection if told else ""


def freeze(
    out: Path,
    files: tuple[Path, Path, Path],
    *,
    name: str,
    labels: Labels,
    collection_name: str = "",
    about: str = "",
    sample: int | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> FrozenSet:
    """Writes the set to the folder `out`, whole or not at all. files: corpus, queries, qrels. collection_name: where
    the queries are from, so that `qrelay forget` knows whose they are. sample: this many of the queries that have a
    relevant document, drawn by `seed`; the corpus stays whole, so that each is as hard as it was. say: told what
    people should know of the files.

    Raises:
        ConfigError: `out` is there already.
        InputError: fewer queries than `sample`.
        MalformedInput: see `read_collection`.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already, and a frozen set does not change: name another folder")
    collection = read_collection(*files, relevant_from=labels.relevant_from)
    for remark in collection.remarks():
        say(remark)
    kept = _drawn(sorted(collection.queries), sample, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(beside, files[0], collection, kept)
        _describe(
            beside,
            name=name,
            collection_name=collection_name,
            labels=labels,
            about=about,
            drawn={"sample": sample, "seed": seed},
        )
        beside.chmod(0o755)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return FrozenSet.read(out)


def _drawn(query_ids: list[str], sample: int | None, seed: int) -> list[str]:
    if sample is None:
        return query_ids
    if sample > len(query_ids):
        raise InputError(f"--sample {sample}: only {len(query_ids)} queries have a relevant document; draw fewer")
    return sorted(random.Random(seed).sample(query_ids, sample))


def _write(folder: Path, corpus: Path, collection: Collection, kept: Sequence[str]) -> None:
    rows = read_records(file_in(corpus, "corpus.jsonl"), document_fields)
    documents = ({"_id": doc_id, "title": title, "text": text} for _, (doc_id, title, text) in rows)
    _write_packed(folder / "corpus.jsonl.gz", map(_line, documents))
    queries = ({"_id": query_id, "text": collection.queries[query_id]} for query_id in kept)
    write_atomic(folder / "queries.jsonl", "".join(map(_line, queries)))
    qrels = (
        f"{query_id}\t{doc_id}\t{grade}\n"
        for query_id in kept
        for doc_id, grade in sorted(collection.qrels[query_id].items())
    )
    write_atomic(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n" + "".join(qrels))


def _describe(
    folder: Path, *, name: str, collection_name: str, labels: Labels, about: str, drawn: Mapping[str, Any]
) -> None:
    told = {
        "name": name,
        **({"collection": collection_name} if collection_name else {}),
        "about": about,
        "labels": {**asdict(labels), "judges": [dict(each) for each in labels.judges]},
        "drawn": drawn,
        "files": {path.relative_to(folder).as_posix(): hash_file(path) for path in data_files(folder)},
    }
    write_atomic(folder / SET_FILE, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _write_packed(path: Path, lines: Iterable[str]) -> None:
    """Without name and time, so that equal lines are equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed:
        for line in lines:
            packed.write(line.encode())
    write_atomic(path, buffer.getvalue())


def _line(row: Mapping[str, str]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
