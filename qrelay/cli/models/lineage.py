"""`qrelay models lineage`: from a checkpoint to the judgments that made it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.models.options import ledger_option, opened, registry_options, say
from qrelay.errors import ConfigError

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog=example("qrelay models lineage bi-encoder-3f9a1c --query-id q17"))
@click.argument("version")
@click.option("--query-id", default="", help="List the judgments of this query.")
@click.option("--judgments", "out", type=_FILE, metavar="OUT.jsonl", help="Write every judgment, one a line.")
@ledger_option
@registry_options
def lineage(
    version: str,
    query_id: str,
    out: Path | None,
    ledger: str | None,
    folder: Path | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show what made VERSION: parents, experiment, data files, exports, judges, and from the ledger their judgments.

    Without a ledger it ends at the judges that the manifests name. A judgment is `counted` where its label is the one
    of its pair that the export took.
    """
    from qrelay.labels.lineage.side import open_side
    from qrelay.models.registry.describe import full_version
    from qrelay.models.registry.lineage import judgments, printed
    from qrelay.models.registry.lineage import lineage as traced

    registry = opened(folder, data_dir, config)
    version = full_version(registry, version)
    with open_side(ledger, data_dir, config) as side:
        if side is None and (query_id or out):
            raise ConfigError("no ledger was found, which holds the judgments: give --ledger or --data-dir")
        found = traced(registry, version, side)
        lines = printed(found)
        if side is not None and query_id:
            found["judgments"] = list(judgments(registry, version, side, query_id))
            lines += [_line(row) for row in found["judgments"]] or [f"nothing was trained on query {query_id}"]
        if side is not None and out:
            found["written"] = _write(out, judgments(registry, version, side, query_id))
            lines.append(f"{found['written']} judgments: {out}")
    say(found, "\n".join(lines), as_json)


def _write(out: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    from qrelay.files import AtomicFiles

    count = 0
    with AtomicFiles() as files:
        file = files.open(out)
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            count += 1
        files.commit()
    return count


def _line(row: Mapping[str, Any]) -> str:
    label = f"missing ({row['missing']})" if row["grade"] is None else f"{row['grade']} on {row['scale']}"
    counted = "*" if row["counted"] else " "
    who = row["author"] or row["judge"][:12]
    return (
        f"{counted} {row['version']} {row['query_id']} {row['passage_id']}: {label}, by {who} at {row['judged_at']},"
        f" generation {row['generation']}, key {row['judgment_key'] or 'none'}"
    )
