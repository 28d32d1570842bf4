"""`qrelay index load`, and what other commands do where Milvus serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.index.options import installation, out_option, settings_of
from qrelay.cli.options import json_option
from qrelay.errors import ConfigError
from qrelay.index.settings import RetrieverSettings
from qrelay.output import echo_json
from qrelay.progress import shown


@click.command(epilog=example("qrelay index load docs"))
@click.argument("collections", nargs=-1)
@out_option
@installation
@json_option()
def load(collections: tuple[str, ...], out: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Load the current versions of COLLECTIONS (all, unless given) into Milvus, which serves them from then on.

    `qrelay index build`, `update` and `reembed` do it by themselves where retriever.engine is milvus. A killed load
    goes on when it is started again; until it is whole the former version serves.
    """
    from qrelay.index.manifest import homes_of

    settings = settings_of(data_dir, config)
    homes = homes_of(out or settings.index_folder, collections)
    if not settings.milvus.uri:
        raise ConfigError("retriever.milvus.uri is empty: name the server, http://HOST:19530 say")
    with shown():
        rows = [_load(settings, home) for home in homes.values()]
    if as_json:
        echo_json({"collections": rows})
        return
    for row in rows:
        click.echo(sentence(row))


def load_where_milvus_serves(settings: RetrieverSettings, home: Path) -> dict[str, Any] | None:
    """Load the current version in `home`, where retriever.engine is milvus. Returns what it did, or None."""
    return _load(settings, home) if settings.engine == "milvus" else None


def _load(settings: RetrieverSettings, home: Path) -> dict[str, Any]:
    from qrelay.index.milvus.load import load_current

    made = load_current(home, settings.milvus)
    return {
        "collection": made.collection,
        "milvus_collection": made.name,
        "version": made.manifest.version,
        "passages": made.manifest.passages - made.manifest.removed,
        "already": made.already,
        "resumed_passages": made.resumed,
        "dropped": list(made.dropped),
    }


def sentence(row: dict[str, Any]) -> str:
    """What was loaded, for people."""
    if row["already"]:
        return f"Milvus serves {row['collection']} version {row['version']} already"
    resumed = f", {row['resumed_passages']:,} of them by an earlier run" if row["resumed_passages"] else ""
    dropped = f"; dropped {', '.join(row['dropped'])}" if row["dropped"] else ""
    return (
        f"loaded {row['passages']:,} passages of {row['collection']} version {row['version']} into Milvus as "
        f"{row['milvus_collection']}{resumed}{dropped}"
    )
