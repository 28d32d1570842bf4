"""`qrelay export`: files from the ledger, without a running service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from qrelay.cli.options import config_option, data_dir_option, json_option


@click.command()
@click.argument("kind", metavar="FORMAT", type=click.Choice(["qrels", "triples"]))
@click.option("--collection", required=True, help="The collection to export.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write, whole or not at all.",
)
@click.option("--ledger", help="Path or sqlite:///PATH.  [default: ledger.sqlite in --data-dir]")
@click.option(
    "--judge",
    help="Only this judge's labels: the beginning of its hash, as manifests name it, or its strategy (fused, "
    "cascade, graded, …) where one judge has it.",
)
@click.option(
    "--unqualified", is_flag=True, help="Export triples even from judges that were measured and not found qualified."
)
@data_dir_option()
@config_option()
@json_option()
def export(
    kind: str,
    collection: str,
    out: Path,
    ledger: str | None,
    judge: str | None,
    unqualified: bool,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Write FORMAT: qrels (TREC) or triples (JSONL: a query, its positives, its hard negatives).

    Reads the ledger directly, also while services write to it. Beside FILE lies FILE.manifest.json with
    counts, sha256, judges and what was measured of them. The same ledger gives the same bytes.
    """
    from qrelay.config import load_settings
    from services.sink.exports.export import export_file
    from services.sink.labels.qualification import read_report
    from services.sink.ledger.ledger import Ledger
    from services.sink.settings import SinkSettings

    settings = load_settings(SinkSettings, "sink", file=config)
    report = read_report(settings.qualification)
    opened = Ledger.open(
        ledger or settings.ledger or str(data_dir / "ledger.sqlite"),
        busy_timeout_s=settings.busy_timeout_s,
        create=False,
    )
    try:
        with _progress(hide=as_json) as on_progress:
            manifest = export_file(
                opened,
                collection,
                kind,
                out,
                rules=settings.rules,
                judge=judge,
                report=report,
                unqualified=unqualified,
                allow_empty=False,
                on_progress=on_progress,
            )
    finally:
        opened.close()
    _report(out, manifest, as_json)


def _report(out: Path, manifest: dict[str, Any], as_json: bool) -> None:
    if as_json:
        import json

        click.echo(json.dumps({"file": str(out), **manifest}))
        return
    click.echo(f"{out}: {manifest['rows']} rows of {manifest['queries']} queries, sha256 {manifest['sha256'][:12]}")
    if manifest["missing"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["missing"].items())
        click.echo(f"left out, for they are missing and not zero: {reasons}")
    click.echo(_qualification(manifest["qualification"]))


def _qualification(found: dict[str, Any]) -> str:
    """What is known of the labels' quality, in one line."""
    verdict = found["verdict"]
    if verdict == "unknown":
        return "qualification: unknown, for no report measures these judges: see `qrelay judge qualify`"
    forced = ", exported all the same (--unqualified)" if found["unqualified"] and verdict != "qualified" else ""
    return f"qualification: {verdict}{forced}"


@contextmanager
def _progress(*, hide: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=hide or not console.is_terminal) as bar:
        task = bar.add_task("exporting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
