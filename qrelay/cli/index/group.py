"""`qrelay index build|list|verify|search|passages|corpus`. Heavy imports happen inside the commands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from qrelay.cli.group import Group, example
from qrelay.cli.index.load import load, load_where_milvus_serves, sentence
from qrelay.cli.index.options import chosen, dim_option, embedder_options, engine_option
from qrelay.cli.index.update import update
from qrelay.cli.options import column_option, config_option, data_dir_option, json_option
from qrelay.errors import ConfigError, CorpusIndexError
from qrelay.exitcodes import EXIT_FAILED, EXIT_PARTIAL
from qrelay.files import AtomicFiles
from qrelay.formats.datasets import DOCUMENTS, Columns
from qrelay.index.kinds import FORMS, KINDS, AnyKind, Form
from qrelay.index.settings import RetrieverSettings
from qrelay.models.engines import ENDPOINT_MARK, ENDPOINT_NAME, EncoderEngine
from qrelay.output import echo_json
from qrelay.progress import shown
from qrelay.settings import load_settings

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_INDEXES: Final = "Folder of all indexes.  [default: retriever.index_dir, else in --data-dir]"
_BLOCK_PASSAGES: Final = 4096


def _settings(data_dir: Path, config: Path | None) -> RetrieverSettings:
    return load_settings(RetrieverSettings, "retriever", file=config, data_dir=data_dir)


def _installation(command: Callable[..., Any]) -> Callable[..., Any]:
    """--data-dir and --config, which say where the indexes are and what embeds them."""
    return data_dir_option()(config_option()(command))


@click.group(cls=Group, epilog=example("qrelay index build corpus.jsonl --collection docs"))
def index() -> None:
    """Build and inspect the retriever's indexes."""


@index.command(epilog=example("qrelay index build corpus.jsonl --collection docs"))
@click.argument("source")
@click.option("--collection", required=True, help="Name that queries ask for: a-z, 0-9, - and _.")
@column_option(DOCUMENTS)
@click.option("--out", type=_FOLDER, help=_INDEXES)
@embedder_options
@click.option("--limit", type=click.IntRange(min=1), help="Use at most so many documents.")
@click.option("--vectors", type=click.Choice(FORMS), help="How vectors are stored.  [default: retriever.vectors]")
@click.option("--ann", type=click.Choice(["auto", *KINDS]), help="Dense search.  [default: retriever.ann]")
@click.option("--language", help="Of BM25's terms, as ISO 639-1.  [default: retriever.language: as detected]")
@click.option("--questions", type=_FILE, help="Queries by which an approximate index's recall is measured.")
@click.option("--follow", is_flag=True, help="Go on as the JSONL file SOURCE grows, until Ctrl-C.")
@_installation
@json_option()
def build(
    source: str, collection: str, told: tuple[str, ...], out: Path | None, embedder: str | None,
    engine: EncoderEngine | None, dim: int | None, limit: int | None, vectors: Form | None, ann: AnyKind | None,
    language: str | None, questions: Path | None, follow: bool, data_dir: Path, config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Build the index of SOURCE and make it the current version of the collection.

    SOURCE is a .jsonl or .jsonl.gz file (BEIR: _id, title, text), a .parquet file, a folder saved by
    `datasets`, hf:NAME[:SPLIT[:CONFIG]], or python-docs[:MODULE,…|:@FILE]. An interrupted build goes on
    when it is started again; services pick a new version up by themselves. Exit code 3: built, but some
    records were left out.
    """
    from qrelay.index.ann import AnnRequest
    from qrelay.index.build import BuildRequest, build_index

    settings = _settings(data_dir, config)
    kind = ann or ("exact" if settings.engine == "milvus" else settings.ann)  # Milvus has an index of its own
    wanted = AnnRequest(kind, settings.ann_recall, settings.ann_links, int(settings.ann_memory_gb * 1e9))
    request = BuildRequest(
        source, collection, out or settings.index_folder, limit,
        vectors=vectors or settings.vectors, ann=wanted, questions=questions,
        language=_language(language or settings.language), columns=Columns.of(told, DOCUMENTS),
    )  # fmt: skip
    with shown():
        embed = chosen(settings, embedder, engine, dim)
        if follow:
            _follow(request, embed, settings, as_json)
            return
        result = build_index(request, embed, _complain)
        loaded = load_where_milvus_serves(settings, result.folder.parent)
    _report(result, loaded, as_json)
    if result.rejected:
        raise SystemExit(EXIT_PARTIAL)


def _language(named: str) -> str:
    """Raises ConfigError: BM25 knows no such language."""
    from qrelay.index.build import AUTO_LANGUAGE
    from qrelay.terms import ANY, LANGUAGES

    if named in (AUTO_LANGUAGE, ANY, *LANGUAGES):
        return named
    raise ConfigError(f"no language {named!r}: give auto, any (no stemmer, no stop words), or {', '.join(LANGUAGES)}")


def _complain(line: str) -> None:
    click.echo(line, err=True)


def _follow(request: Any, embedder: Any, settings: RetrieverSettings, as_json: bool) -> None:
    from qrelay.index.follow import follow_corpus

    def built(result: Any) -> None:
        _report(result, load_where_milvus_serves(settings, result.folder.parent), as_json)

    with suppress(KeyboardInterrupt):
        asyncio.run(follow_corpus(request, embedder, _complain, built))


def _report(result: Any, loaded: dict[str, Any] | None, as_json: bool) -> None:
    facts = result.manifest.model_dump(exclude={"files", "rejected"})
    summary = facts | {
        "folder": str(result.folder),
        "already_built": result.already,
        "rejected": result.rejected,
        "rejected_examples": list(result.examples),
        "resumed_passages": result.resumed,
        "replaced_characters": result.replaced,
        "cut_titles": result.cut_titles,
        "remarks": list(result.remarks()),
    }
    for remark in summary["remarks"]:
        click.echo(remark, err=True)
    if loaded is not None:
        summary["milvus"] = loaded
    _print(summary if as_json else _sentences(summary), as_json)


def _sentences(summary: dict[str, Any]) -> str:
    counts = (
        f"{summary['documents']:,} documents, {summary['passages']:,} passages, "
        f"{summary['size_bytes'] / 1e6:,.1f} MB, {summary['rejected']:,} records left out"
    )
    loaded = f"\n{sentence(summary['milvus'])}" if "milvus" in summary else ""
    if summary["already_built"]:
        return f"{summary['folder']} is already built from this corpus, model and parameters ({counts}){loaded}"
    taken = ""
    if summary["resumed_passages"] or summary["reused"]:
        taken = f"; {summary['resumed_passages']:,} vectors resumed, {summary['reused']:,} reused"
    return (
        f"built {summary['folder']} ({counts}) in {summary['build_seconds']:,.1f} s, "
        f"embedding {summary['passages_per_second']:,.0f} passages/s{taken}{loaded}"
    )


def _print(answer: Any, as_json: bool) -> None:
    if as_json:
        echo_json(answer)
    else:
        click.echo(answer)


@index.command(epilog=example("qrelay index reembed --model registry --collection docs"))
@click.option("--model", required=True, help="`registry` for the promoted bi-encoder, or an embedding model's name.")
@engine_option()
@dim_option()
@click.option("--out", type=_FOLDER, help=_INDEXES)
@click.option("--collection", "collections", multiple=True, help="Collection to re-embed.  [default: all in --out]")
@click.option("--registry", type=_FOLDER, help="The model registry.  [default: all.registry, else in --data-dir]")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads; 0: the library's choice.")
@click.option("--niceness", type=click.IntRange(0, 19), default=0, help="Niceness of the process.")
@click.option("--if-promoted", is_flag=True, help="With `--model registry`: succeed if nothing is promoted yet.")
@click.option("--parent", type=int, hidden=True, help="Process id of the service that asked; exit when it exits.")
@_installation
@json_option()
def reembed(
    model: str, engine: EncoderEngine | None, dim: int | None, out: Path | None, collections: tuple[str, ...],
    registry: Path | None, threads: int, niceness: int, if_promoted: bool, parent: int | None, data_dir: Path,
    config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Embed the passages of the indexes in --out with another model, and switch to it.

    Texts and BM25 are kept as they are; no corpus is needed. An interrupted run goes on when it is started again. A
    version that is there already is only switched to. Retrievers pick it up by themselves, and do all this on their
    own unless retriever.reembed is false.
    """
    from qrelay.index.embedding import loader
    from qrelay.index.reembed_job import FROM_REGISTRY, Job, nothing_promoted, run

    settings = _settings(data_dir, config)
    folder, registry = out or settings.index_folder, registry or settings.registry_folder
    engine = engine or ("torch" if model == FROM_REGISTRY else settings.embedder_engine)
    dim = settings.embedder_dim if dim is None else dim
    job = Job(folder, collections, model, registry, threads, niceness, parent, engine, dim)
    if if_promoted and nothing_promoted(job):
        _print({"collections": []} if as_json else "no bi-encoder is promoted yet: nothing to do", as_json)
        return
    rows = run(job, loader(settings))
    with shown():
        for row in (each for each in rows if each["switched"]):
            if loaded := load_where_milvus_serves(settings, folder / row["collection"]):
                row["milvus"] = loaded
    if as_json:
        echo_json({"collections": rows})
        return
    for row in rows:
        _print(
            f"{row['collection']}: {'switched to' if row['switched'] else 'made'} {row['folder']} "
            f"({row['passages']:,} passages by {row['embedder']}"
            + ("; it was there already)" if row["already"] else f", {row['passages_per_second']:,.0f} passages/s)")
            + (f"\n{sentence(row['milvus'])}" if "milvus" in row else ""),
            False,
        )


@index.command(epilog=example("qrelay index info docs"))
@click.argument("collection")
@click.option("--out", type=_FOLDER, help=_INDEXES)
@_installation
@json_option()
def info(collection: str, out: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """What the current version of COLLECTION is: counts, embedder, how dense search works and its measured recall."""
    from qrelay.index.manifest import current_folder, read_manifest

    facts = read_manifest(current_folder((out or _settings(data_dir, config).index_folder) / collection))
    if as_json:
        echo_json(facts.model_dump(exclude={"files"}))
        return
    shown_facts = facts.model_dump(exclude={"files", "parameters", "ann", "removed", "format"}, exclude_none=True)
    for name, value in {**shown_facts, **facts.parameters, **facts.dense_facts()}.items():
        click.echo(f"{name:<20} {value:,}" if isinstance(value, int) else f"{name:<20} {value}")


index.add_command(update)
index.add_command(load)


@index.command("list", epilog=example("qrelay index list"))
@click.argument("folder", type=_FOLDER, required=False)
@_installation
@json_option()
def list_(folder: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """The collections in FOLDER (the installation's, unless given) with their versions; * marks the current one."""
    from qrelay.index.manifest import MANIFEST, current_version, read_manifest

    folder = folder or _settings(data_dir, config).index_folder
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


@index.command(epilog=example("qrelay index verify .qrelay/index"))
@click.argument("folder", type=_FOLDER)
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


@index.command(epilog=example("qrelay index search .qrelay/index/docs 'how do I sort a dictionary' --top 5"))
@click.argument("folder", type=_FOLDER)
@click.argument("text")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Candidates to show.")
@click.option("--embedder", help="Embedding model.  [default: the one that the index names]")
@_installation
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
    own = _settings(data_dir, config) if model == ENDPOINT_NAME else RetrieverSettings()
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


@index.command(epilog=example("qrelay index passages .qrelay/index/docs --out passages.jsonl"))
@click.argument("folder", type=_FOLDER)
@click.option("--out", required=True, type=_FILE, help="JSONL to write: passage_id, doc_id, title, text.")
def passages(folder: Path, out: Path) -> None:
    """Write the passages of the collection FOLDER's current version, as its queries find them."""
    import numpy as np

    from qrelay.index.manifest import current_folder
    from qrelay.index.store import PassageStore

    store = PassageStore(current_folder(folder.absolute()))
    starts = range(0, len(store), _BLOCK_PASSAGES)
    blocks = (store.passages(np.arange(start, min(start + _BLOCK_PASSAGES, len(store)))) for start in starts)
    fields = ("passage_id", "doc_id", "title", "text")
    _write_lines(out, ({name: getattr(each, name) for name in fields} for block in blocks for each in block))
    click.echo(f"wrote {len(store):,} passages to {out}")


@index.command(epilog=example("qrelay index corpus python-docs --out corpus.jsonl"))
@click.argument("source")
@column_option(DOCUMENTS)
@click.option("--out", required=True, type=_FILE, help="JSONL to write, in BEIR's layout: _id, title, text.")
def corpus(source: str, told: tuple[str, ...], out: Path) -> None:
    """Write the documents of SOURCE (see `qrelay index build`) as a BEIR corpus. Exit code 3: some were left out."""
    from qrelay.index.corpus import read_corpus

    left_out: list[str] = []
    columns = Columns.of(told, DOCUMENTS)
    documents = read_corpus(source, lambda where, why: left_out.append(f"left out {where}: {why}"), columns=columns)
    _write_lines(out, ({"_id": each.doc_id, "title": each.title, "text": each.text} for each in documents))
    click.echo(f"wrote the documents of {source} to {out}")
    if left_out:
        click.echo("\n".join(left_out), err=True)
        raise SystemExit(EXIT_PARTIAL)


def _write_lines(out: Path, rows: Iterable[dict[str, str]]) -> None:
    """Whole or absent, one row in memory at a time."""
    with AtomicFiles() as files:
        file = files.open(out)
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        files.commit()


def _as_row(candidate: Any) -> dict[str, Any]:
    passage = candidate.passage
    scores = {score.system: {"score": score.score, "rank": score.rank} for score in candidate.scores}
    return {"passage_id": passage.passage_id, "title": passage.title, "text": passage.text, "scores": scores}
