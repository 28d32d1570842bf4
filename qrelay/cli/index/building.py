"""`qrelay index build|reembed`. Heavy imports happen inside the commands."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.index.load import load_where_milvus_serves, sentence
from qrelay.cli.index.options import (
    FILE,
    FOLDER,
    chosen,
    dim_option,
    embedder_options,
    engine_option,
    installation,
    out_option,
    settings_of,
)
from qrelay.cli.options import column_option, json_option
from qrelay.errors import ConfigError
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.formats.datasets import DOCUMENTS, Columns
from qrelay.index.kinds import FORMS, KINDS, AnyKind, Form
from qrelay.index.settings import RetrieverSettings
from qrelay.models.engines import EncoderEngine
from qrelay.output import echo_json
from qrelay.progress import shown


@click.command(epilog=example("qrelay index build corpus.jsonl --collection docs"))
@click.argument("source")
@click.option("--collection", required=True, help="Name that queries ask for: a-z, 0-9, - and _.")
@column_option(DOCUMENTS)
@out_option
@embedder_options
@click.option("--limit", type=click.IntRange(min=1), help="Use at most so many documents.")
@click.option("--vectors", type=click.Choice(FORMS), help="How vectors are stored.  [default: retriever.vectors]")
@click.option("--ann", type=click.Choice(["auto", *KINDS]), help="Dense search.  [default: retriever.ann]")
@click.option("--language", help="Of BM25's terms, as ISO 639-1.  [default: retriever.language: as detected]")
@click.option("--questions", type=FILE, help="Queries by which an approximate index's recall is measured.")
@click.option("--follow", is_flag=True, help="Go on as the JSONL file SOURCE grows, until Ctrl-C.")
@installation
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

    settings = settings_of(data_dir, config)
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


@click.command(epilog=example("qrelay index reembed --model registry --collection docs"))
@click.option("--model", required=True, help="`registry` for the promoted bi-encoder, or an embedding model's name.")
@engine_option()
@dim_option()
@out_option
@click.option("--collection", "collections", multiple=True, help="Collection to re-embed.  [default: all in --out]")
@click.option("--registry", type=FOLDER, help="The model registry.  [default: all.registry, else in --data-dir]")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads; 0: the library's choice.")
@click.option("--niceness", type=click.IntRange(0, 19), default=0, help="Niceness of the process.")
@click.option("--if-promoted", is_flag=True, help="With `--model registry`: succeed if nothing is promoted yet.")
@click.option("--parent", type=int, hidden=True, help="Process id of the service that asked; exit when it exits.")
@installation
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

    settings = settings_of(data_dir, config)
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
