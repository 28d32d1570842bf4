"""`qrelay export`: files from the ledger, without a running service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.labels.frame import allowing_options, progress
from qrelay.cli.options import Decorator, config_option, data_dir_option, json_option
from qrelay.labels.exports.catalogue import FORMATS
from qrelay.labels.opening import open_ledger
from qrelay.output import echo_json

_HELP = """Write FORMAT to --out: a file with its manifest beside it, or a folder with a manifest inside; whole or not
at all. The same ledger gives the same bytes.

Reads the ledger directly, also while services write to it. The manifest has counts, sha256, judges and what was
measured of them. With --split there is a file a split, in a folder.

Judgments for evaluation (qrels, beir, ir_datasets) are written with a warning if their judge was not measured.
Training data (every other format with labels, and a split named train) are then refused: annotate 50 pairs, run
`qrelay judge qualify`, and name the report in sink.qualification; or give --unmeasured.

\b
FORMAT is one of
{formats}
"""


def selection_options() -> Decorator:
    """The options that `qrelay export` and `qrelay push` share: which labels, and how they are laid out."""
    options = (
        click.option("--collection", required=True, help="The collection to export."),
        click.option("--ledger", help="Path or database URL.  [default: the setting sink.ledger, or ledger.sqlite]"),
        click.option(
            "--judge",
            help="Only this judge's labels: the beginning of its hash, as manifests name it, or its strategy (fused, "
            "cascade, graded, …) where one judge has it.",
        ),
        click.option(
            "--where",
            default="",
            help='Only labels that satisfy this: "grade>=2 and p_relevant<0.9".',
        ),
        click.option(
            "--by",
            type=click.Choice(["passage", "document"]),
            default="passage",
            show_default=True,
            help="What a row is about; a document has its best passage's label (qrelay/labels/README.md).",
        ),
        click.option("--overrides", is_flag=True, help="Let people's decisions (`qrelay label`) win over judges'."),
        click.option("--split", help="Splits and their shares: train=0.8,dev=0.1,test=0.1."),
        click.option(
            "--group-by",
            default="doc",
            show_default=True,
            help="What keeps queries in one split, beside an equal text: doc (a relevant document in common), "
            "attribute:NAME, or query (nothing more).",
        ),
        click.option("--negatives", default=5, show_default=True, help="Negative columns of st-ntuple."),
        click.option(
            "--scores",
            is_flag=True,
            help="Teacher scores, P(relevant), beside the passages: in tevatron, tevatron-v2, st-triplet, st-ntuple.",
        ),
        click.option("--license", "licence", default="", help="Licence on the hf card, as the hub spells it."),
        allowing_options("Export training data"),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command(
    help=_HELP.format(formats="\n".join(f"  {name:<16} {each.about}" for name, each in FORMATS.items())),
    epilog=example("qrelay export qrels --collection docs --out docs.qrels"),
)
@click.argument("kind", metavar="FORMAT", type=click.Choice(list(FORMATS)))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File, or folder, to write.")
@selection_options()
@click.option(
    "--system", default="", help="Whose run FORMAT run is: bm25, dense, bi_encoder, cross_encoder, or a fed one's."
)
@click.option("--since", type=int, help="Only queries that changed after this change number.")
@click.option(
    "--since-last",
    is_flag=True,
    help="The same since the last export of this collection, format and selection.",
)
@data_dir_option()
@config_option()
@json_option()
def export(
    out: Path, since: int | None, since_last: bool, data_dir: Path, config: Path | None, as_json: bool, **asked: Any
) -> None:
    """See _HELP."""
    from qrelay.labels.exports.export import write_export
    from qrelay.labels.exports.request import request_of

    if since is not None and since_last:
        raise click.UsageError("give --since or --since-last, not both")
    with open_ledger(asked.pop("ledger"), data_dir, config) as (ledger, settings):
        request = request_of(settings, since=since, **asked)
        if since_last:
            request = _since_last(ledger, request, quiet=as_json)
        with progress("exporting") as on_progress:
            manifest = write_export(ledger, request, out, request.since is not None, on_progress)
    warn(manifest)
    _report(out, manifest, as_json)


def _since_last(ledger: Any, request: Any, *, quiet: bool) -> Any:
    """The request as an increment on the last such export; from the beginning where there is none."""
    from dataclasses import replace

    from qrelay.labels.ledger.export_records import last_export

    request.check()
    last = last_export(ledger, request.collection, request.kind, request.selection(), request.describe_rules())
    if not quiet:
        words = f"continues {last.location}, changes up to {last.to_change}" if last else "the first of its kind"
        click.echo(f"since last: {words}", err=True)
    return replace(request, since=last.to_change if last else 0)


def _report(out: Path, manifest: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json({"file": str(out), **manifest})
        return
    click.echo(f"{out}: {manifest['rows']} rows of {manifest['queries']} queries, sha256 {manifest['sha256'][:12]}")
    for line in remarks(manifest):
        click.echo(line)


def remarks(manifest: dict[str, Any]) -> Iterator[str]:
    """What else people should know of an export, a line each."""
    if changes := manifest.get("changes"):
        emptied = f"; {len(manifest['emptied'])} touched queries have no row now" if manifest["emptied"] else ""
        yield f"increment: changes {changes['from']} to {changes['to']}{emptied}"
    for name, split in manifest.get("splits", {}).items():
        yield f"  {name}: {split['rows']} rows of {split['queries']} queries"
    for word, count in manifest["notes"].items():
        yield f"{word.replace('_', ' ')}: {count}"
    if manifest["missing"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest["missing"].items())
        yield f"left out because they are missing, not zero: {reasons}"
    if manifest["overrides"]:
        yield f"labels set by people: {manifest['overrides']}"
    if manifest["judges"]:
        yield _qualification(manifest["qualification"])


def warn(manifest: dict[str, Any]) -> None:
    """On standard error, whose labels were not measured, or fell short."""
    for line in manifest["qualification"]["warnings"]:
        click.secho(f"warning: {line}", fg="yellow", err=True)
    if manifest["qualification"]["warnings"]:
        click.echo(
            "  look before you rely on them: `qrelay judge slice --n 50`, grade, `qrelay judge qualify`", err=True
        )


def _qualification(found: dict[str, Any]) -> str:
    """What is known of the labels' quality, in one line."""
    flags = sorted({flag for judge in found["judges"].values() for flag in judge["let_through_by"]})
    forced = f", exported all the same ({', '.join(flags)})" if flags else ""
    unknown = ", for no report measures these judges" if found["verdict"] == "unknown" else ""
    return f"qualification: {found['verdict']}{unknown}{forced}"
