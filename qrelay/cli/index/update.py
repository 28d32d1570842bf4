"""`qrelay index update`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.index.load import load_where_milvus_serves, sentence
from qrelay.cli.index.options import FILE, chosen, embedder_options, installation, out_option, settings_of
from qrelay.cli.options import column_option, json_option
from qrelay.errors import InputError
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.formats.datasets import DOCUMENTS, Columns
from qrelay.models.engines import EncoderEngine
from qrelay.output import echo_json
from qrelay.progress import shown


@click.command(epilog=example("qrelay index update new.jsonl --collection docs --remove withdrawn.txt"))
@click.argument("source", required=False)
@click.option("--collection", required=True, help="Name of the collection.")
@column_option(DOCUMENTS)
@click.option("--remove", type=FILE, help="File with a document id a line.")
@click.option("--remove-id", "remove_ids", multiple=True, help="Id of a document to remove; several times for more.")
@out_option
@embedder_options
@installation
@json_option()
def update(
    source: str | None, collection: str, told: tuple[str, ...], remove: Path | None, remove_ids: tuple[str, ...],
    out: Path | None, embedder: str | None, engine: EncoderEngine | None, dim: int | None, data_dir: Path,
    config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Add the documents of SOURCE to a collection, replace those whose ids are there, and remove others.

    SOURCE and --column are as for `qrelay index build`. Only what changed is embedded. Removed documents are in no
    answer as soon as a service looks for new versions, within a second; added and changed ones count once the new
    version is built. A killed update goes on when it is started again. Exit code 3: some records were left out, or
    some ids to remove were unknown.
    """
    from qrelay.index.update import UpdateRequest, update_index

    removed = frozenset((*remove_ids, *(document_ids(remove) if remove else ())))
    if not source and not removed:
        raise InputError("there is nothing to change: give a SOURCE, --remove FILE or --remove-id ID")
    settings = settings_of(data_dir, config)
    request = UpdateRequest(
        collection, out or settings.index_folder, source or "", removed, Columns.of(told, DOCUMENTS)
    )
    with shown():
        embed = chosen(settings, embedder, engine, dim)
        result = update_index(request, embed, lambda line: click.echo(line, err=True))
        loaded = load_where_milvus_serves(settings, request.out / collection)
    counts = {name: count for name, count in asdict(result).items() if name != "built"}
    built = result.built
    rejected = built.rejected if built else 0
    remarks = list(built.remarks()) if built else []
    for remark in remarks:
        click.echo(remark, err=True)
    if as_json:
        version = built.manifest.version if built else None
        reused = built.manifest.reused if built else None
        facts = {**counts, "version": version, "rejected": rejected, "reused": reused, "remarks": remarks}
        echo_json(facts | ({"milvus": loaded} if loaded else {}))
    else:
        click.echo(_told(counts, built))
        if loaded:
            click.echo(sentence(loaded))
    if rejected or result.unknown:
        raise SystemExit(EXIT_PARTIAL)


def document_ids(path: Path) -> list[str]:
    """Those in a file, one a line. Raises MalformedInput: it is no text."""
    from qrelay.formats.lines import byte_lines, decoded

    return [text for _, line in byte_lines(path) if (text := decoded(line).strip())]


def _told(counts: dict[str, int], built: Any) -> str:
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    if built is None:
        return f"nothing to do: {said}"
    facts = built.manifest
    return (
        f"built {built.folder}: {said}; {facts.documents:,} documents, {facts.passages:,} passages, "
        f"{facts.reused:,} vectors reused, in {facts.build_seconds:,.1f} s"
    )
