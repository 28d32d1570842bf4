"""`qrelay index info|list|verify|search|passages|corpus`. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.index.options import FILE, FOLDER, INDEX, installation, out_option, settings_of
from qrelay.cli.options import column_option, json_option
from qrelay.errors import CorpusIndexError
from qrelay.exitcodes import EXIT_FAILED, EXIT_PARTIAL
from qrelay.files import AtomicFiles
from qrelay.formats.datasets import DOCUMENTS, Columns
from qrelay.index.settings import RetrieverSettings
from qrelay.models.engines import ENDPOINT_MARK, ENDPOINT_NAME
from qrelay.output import echo_json


@click.command(epilog=example("qrelay index info docs"))
@click.argument("collection")
@out_option
@installation
@json_option()
def info(collection: str, out: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """What the current version of COLLECTION is: counts, embedder, how dense search works and its measured recall."""
    from qrelay.index.manifest import current_folder, read_manifest

    facts = read_manifest(current_folder((out or settings_of(data_dir, config).index_folder) / collection))
    if as_json:
        echo_json(facts.model_dump(exclude={"files"}))
        return
    shown_facts = facts.model_dump(exclude={"files", "parameters", "ann", "removed", "format"}, exclude_none=True)
    for name, value in {**shown_facts, **facts.parameters, **facts.dense_facts()}.items():
        click.echo(f"{name:<20} {value:,}" if isinstance(value, int) else f"{name:<20} {value}")


@click.command("list", epilog=example("qrelay index list"))
@click.argument("folder", type=FOLDER, required=False)
@installation
@json_option()
def list_(folder: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """The collections in FOLDER (the installation's, unless given) with their versions; * marks the current one."""
    from qrelay.index.manifest import MANIFEST, current_version, read_manifest

    folder = folder or settings_of(data_dir, config).index_folder
    rows = []
    for path in sorted(folder.glob(f"[!.]*/[!.]*/{MANIFEST}")):
        try:
            facts = read_manifest(path.parent)
        except CorpusIndexError as error:
            click.secho(str(error), fg="red", err=True)
            continue
        current = current_version(path.parent.parent) == facts.version
        rows.append(facts.model_dump(exclude={"files"}) | {"current": current, "folder": str(path.parent)})
    if as_json:
        echo_json({"versions": rows})
        return
    for row in rows:
        mark, size = "*" if row["current"] else " ", row["size_bytes"] / 1e6
        click.echo(
            f"{mark} {row['collection']}  {row['version']}  {row['documents']:,} documents  "
            f"{row['passages']:,} passages  {size:,.1f} MB  {row['embedder']}"
        )
    if not rows:
        click.echo(f"no index in {folder}; build one with `qrelay index build`", err=True)


@click.command(epilog=example("qrelay index verify .qrelay/index"))
@click.argument("folder", type=INDEX)
@json_option()
def verify(folder: Path, as_json: bool) -> None:
    """Check every file's sha256 below FOLDER: a version, a collection, or the folder of all indexes."""
    from qrelay.index.manifest import MANIFEST, current_folder, problems, read_manifest

    folders = sorted({path.parent for path in folder.glob(f"**/{MANIFEST}") if not _unfinished(path)})
    if not folders:
        current_folder(folder)  # says what is wrong
        raise CorpusIndexError(f"no index below {folder}; build one with `qrelay index build`")
    found: list[str] = []
    for version in folders:
        try:
            found.extend(problems(version, read_manifest(version), "full"))
        except CorpusIndexError as error:
            found.append(str(error))
    if as_json:
        echo_json({"versions": [str(path) for path in folders], "problems": found})
    else:
        click.echo("\n".join(found) or f"{len(folders)} version(s) verified, all files are whole")
    if found:
        raise SystemExit(EXIT_FAILED)


def _unfinished(path: Path) -> bool:
    return path.parent.name.startswith((".build-", ".reembed-"))


@click.command(epilog=example("qrelay index search .qrelay/index/docs 'how do I sort a dictionary' --top 5"))
@click.argument("folder", type=INDEX)
@click.argument("text")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Candidates to show.")
@click.option("--embedder", help="Embedding model.  [default: the one that the index names]")
@installation
@json_option()
def search(
    folder: Path, text: str, top: int, embedder: str | None, data_dir: Path, config: Path | None, as_json: bool
) -> None:
    """Try an index out: the candidates of the collection FOLDER for a question TEXT."""
    from qrelay.index.manifest import current_folder, read_manifest
    from qrelay.services.retriever.retriever import load_retriever
    from qrelay.types import Query

    folder = folder.absolute()
    named = read_manifest(current_folder(folder)).embedder
    model = embedder or (ENDPOINT_NAME if ENDPOINT_MARK in named else named.partition("@")[0])
    own = settings_of(data_dir, config) if model == ENDPOINT_NAME else RetrieverSettings()
    settings = own.model_copy(
        update={
            "index_dir": folder.parent,
            "collections": (folder.name,),
            "embedder": model,
            "data_dir": data_dir,
            "registry_poll_s": 0,
        }
    )
    (found,) = load_retriever(settings).retrieve([Query("q", text, folder.name)], top)
    if isinstance(found, Exception):
        raise found
    if as_json:
        echo_json({"candidates": [_as_row(candidate) for candidate in found.candidates]})
        return
    for place, candidate in enumerate(found.candidates, start=1):
        row = _as_row(candidate)
        ranks = "  ".join(f"{name} {s['score']:.3f} (rank {s['rank'] or '-'})" for name, s in row["scores"].items())
        click.secho(f"{place:>3}  {row['passage_id']}  {row['title']}", bold=True)
        click.echo(f"     {ranks}\n     {row['text'][:160]!r}")


@click.command(epilog=example("qrelay index passages .qrelay/index/docs --out passages.jsonl"))
@click.argument("folder", type=INDEX)
@click.option("--out", required=True, type=FILE, help="JSONL to write: passage_id, doc_id, title, text, metadata.")
def passages(folder: Path, out: Path) -> None:
    """Write the passages of the collection FOLDER's current version, as its queries find them."""
    from qrelay.index.manifest import current_folder, dead_rows
    from qrelay.index.store import PassageStore

    version = current_folder(folder.absolute())
    store, dead = PassageStore(version), set(dead_rows(version).tolist())
    found = (passage for row, passage in enumerate(store.every_passage()) if row not in dead)
    _write_lines(out, (_lean(asdict(each)) for each in found))
    click.echo(f"wrote {len(store) - len(dead):,} passages to {out}")


@click.command(epilog=example("qrelay index corpus python-docs --out corpus.jsonl"))
@click.argument("source")
@column_option(DOCUMENTS)
@click.option("--out", required=True, type=FILE, help="JSONL to write, in BEIR's layout: _id, title, text, metadata.")
def corpus(source: str, told: tuple[str, ...], out: Path) -> None:
    """Write the documents of SOURCE (see `qrelay index build`) as a BEIR corpus. Exit code 3: some were left out."""
    from qrelay.formats.records import metadata_remark
    from qrelay.index.corpus import read_corpus

    left_out: list[str] = []
    fields = 0
    columns = Columns.of(told, DOCUMENTS)
    documents = read_corpus(source, lambda where, why: left_out.append(f"left out {where}: {why}"), columns=columns)

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal fields
        for each in documents:
            fields += each.left_out
            yield {"_id": each.doc_id, "title": each.title, "text": each.text, "metadata": each.metadata}

    _write_lines(out, map(_lean, rows()))
    click.echo(f"wrote the documents of {source} to {out}")
    if fields:
        click.echo(metadata_remark(fields), err=True)
    if left_out:
        click.echo("\n".join(left_out), err=True)
        raise SystemExit(EXIT_PARTIAL)


def _lean(row: dict[str, Any]) -> dict[str, Any]:
    """Without metadata where there is none."""
    return {name: value for name, value in row.items() if name != "metadata" or value}


def _write_lines(out: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Whole or absent, one row in memory at a time."""
    with AtomicFiles() as files:
        file = files.open(out)
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        files.commit()


def _as_row(candidate: Any) -> dict[str, Any]:
    passage = candidate.passage
    scores = {score.system: {"score": score.score, "rank": score.rank} for score in candidate.scores}
    row = {name: getattr(passage, name) for name in ("passage_id", "title", "text", "metadata")}
    return _lean(row) | {"scores": scores}
