"""`qrelay label set | withdraw | import | tasks | list | queue`: what people decide about pairs, in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import Group, example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.exitcodes import EXIT_FAILED, EXIT_PARTIAL
from qrelay.formats.annotators import TOOLS
from qrelay.labels.opening import open_ledger, require_collection
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.labels.importing import Imported
    from qrelay.labels.ledger.ledger import Ledger
    from qrelay.labels.ledger.overrides import Written

_FILE = click.Path(path_type=Path, dir_okay=False)
_MEASURES = click.Choice(["disagreement", "uncertainty"])


def _ledger_options(command: Callable[..., Any]) -> Callable[..., Any]:
    where = "Path or URL.  [default: the sink's setting, else ledger.sqlite in --data-dir]"
    options = click.option("--ledger", "ledger_url", help=where), data_dir_option(), config_option(), json_option()
    for option in reversed(options):
        command = option(command)
    return command


def _pair_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--collection", required=True, help="The collection of the query."),
        click.option("--query-id", required=True, help="The query."),
        click.option("--passage-id", required=True, help="The passage, as exports name it."),
        click.option("--author", help="Who decides.  [default: sink.override_author, else the user's name]"),
        click.option("--note", default="", help="Reason, for people."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(cls=Group, epilog=example("qrelay label queue --collection docs --by uncertainty"))
def label() -> None:
    """Record people's decisions about pairs: append-only, authored, dated; they win in exports with --overrides."""


@label.command(
    "set", epilog=example("qrelay label set --collection docs --query-id q17 --passage-id 'manual#3' --grade 2")
)
@_pair_options
@click.option("--grade", type=int, required=True, help="The grade.")
@click.option("--scale", default="0-3", show_default=True, help="The scale that the grade is on.")
@_ledger_options
def set_(collection: str, query_id: str, passage_id: str, grade: int, scale: str, note: str, **options: Any) -> None:
    """Grade a pair. The same decision again by the same author changes nothing."""
    from qrelay.labels.deciding import decide
    from qrelay.labels.ledger.overrides import NewOverride

    with _opened(options) as (ledger, author):
        written = decide(ledger, collection, NewOverride(query_id, passage_id, grade, scale, author, note))
    _say_written(written, "set", options["as_json"])


@label.command(epilog=example("qrelay label withdraw --collection docs --query-id q17 --passage-id 'manual#3'"))
@_pair_options
@_ledger_options
def withdraw(collection: str, query_id: str, passage_id: str, note: str, **options: Any) -> None:
    """Withdraw the override of a pair: the judges' labels count again."""
    from qrelay.labels.deciding import decide
    from qrelay.labels.ledger.overrides import NewOverride

    with _opened(options) as (ledger, author):
        written = decide(ledger, collection, NewOverride(query_id, passage_id, None, "", author, note))
    _say_written(written, "withdrawn", options["as_json"])


@label.command("import", epilog=example("qrelay label import graded.tsv --collection docs --author ana"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--collection", required=True, help="The collection of the queries.")
@click.option("--scale", default="0-3", show_default=True, help="The scale that the file's grades are on.")
@click.option("--documents", is_flag=True, help="The file grades documents, not passages.")
@click.option("--scale-map", metavar="THEIRS=OURS,…", help="The file's grades on --scale, as in 1=0,2=1,3=2,4=3.")
@click.option("--author", help="Of lines that name none.  [default: sink.override_author, else the user's name]")
@click.option("--skip-bad", is_flag=True, help="Import the good lines of a file that has bad ones.")
@_ledger_options
def import_(
    file: Path, collection: str, scale: str, documents: bool, scale_map: str | None, skip_bad: bool, **options: Any
) -> None:
    """Grade the pairs in FILE: TREC qrels, BEIR's qrels, or a TSV under a header with query_id, passage_id and grade
    (author and note are optional); or what Label Studio or Argilla exported of `qrelay label tasks`, as JSON, whose
    annotations are counted from 1 in place of lines. The first line decides which.

    With --documents a grade of 0 (the scale's lowest, or below 0) applies to each judged passage of the document, and
    a higher one to its only judged passage. If there are several, the line is bad, and the error lists them.

    Every bad line is reported, and then nothing is imported. Exit code 0: everything is imported; 1: nothing; 3: with
    --skip-bad, all but the bad lines.
    """
    from qrelay.labels.importing import import_file, parse_scale_map

    mapped = parse_scale_map(scale_map, scale) if scale_map else None
    with _opened(options) as (ledger, author):
        require_collection(ledger, collection)
        found = import_file(
            ledger, collection, file,
            scale=scale, author=author, skip_bad=skip_bad, documents=documents, scale_map=mapped,
        )  # fmt: skip
    _say_imported(file, found, options["as_json"])
    if found.bad:
        raise SystemExit(EXIT_FAILED if found.written is None else EXIT_PARTIAL)


@label.command(epilog=example("qrelay label tasks to-grade.tsv --for label-studio --out to-grade"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--for", "tool", type=click.Choice([*TOOLS]), required=True, help="The tool.")
@click.option("--scale", default="0-3", show_default=True, help="The scale that people grade on.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="New folder to write.")
def tasks(file: Path, tool: str, scale: str, out: Path) -> None:
    """Write the annotated pairs in FILE (of `qrelay judge slice`, `eval sample`, `label list --slice`) as tasks for
    another tool, without any grade: what people set there comes back with `qrelay label import`."""
    from qrelay.errors import BackendUnavailable, InputError
    from qrelay.formats.annotated_pairs import read_annotated_pairs
    from qrelay.scales import peoples_bounds

    if out.exists():
        raise InputError(f"{out} exists: choose another --out")
    pairs = read_annotated_pairs(file, ungraded=True)
    try:
        TOOLS[tool].write(out, pairs, peoples_bounds(scale))
    except OSError as error:
        raise BackendUnavailable(f"cannot write {out}: {error.strerror}") from error
    click.echo(f"{out}: {len(pairs)} pairs to grade in {tool}")


@label.command("list", epilog=example("qrelay label list --collection docs --standing"))
@click.option("--collection", default="", help="Of this collection.  [default: of all]")
@click.option("--query-id", default="", help="Of this query.")
@click.option("--author", "by", default="", help="Of this author.")
@click.option("--standing", is_flag=True, help="Only those in force: none withdrawn or replaced.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Rows, at most.")
@click.option("--page-token", default="", help="Continue where a list ended, as it said.")
@click.option("--slice", "slice_", type=_FILE, help="Write those in force as TSV, for `qrelay judge`.")
@click.option("--scale", default="", help="With --slice: only overrides on this scale.")
@_ledger_options
def list_(slice_: Path | None, collection: str, scale: str, **options: Any) -> None:
    """List overrides, oldest first; or with --slice write a collection's as annotated pairs for calibration."""
    if slice_ is not None:
        _write_annotated_pairs(slice_, collection, scale, options)
        return
    from qrelay.cli.labels.label_output import described_override, printed_override
    from qrelay.labels.ledger import overrides

    with _opened(options) as (ledger, _), ledger.snapshot() as snapshot:
        if collection:
            snapshot.require_collection(collection)
        page = overrides.page(
            snapshot.connection,
            collection,
            query_id=options["query_id"],
            author=options["by"],
            only_standing=options["standing"],
            page_size=options["limit"],
            page_token=options["page_token"],
        )
    rows = [described_override(each) for each in page.overrides]
    if options["as_json"]:
        echo_json({"overrides": rows, "next_page_token": page.next_page_token})
        return
    for row in rows:
        click.echo(printed_override(row))
    _say_next(len(rows), "overrides", page.next_page_token, _no_override(collection, options))


@label.command(epilog=example("qrelay label queue --collection docs --by uncertainty --limit 20"))
@click.option("--collection", required=True, help="The collection to review.")
@click.option("--by", "measure", type=_MEASURES, required=True, help="Doubt between judges, or in one label.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="Pairs, at most.")
@click.option("--page-token", default="", help="Continue where a list ended, as it said.")
@click.option("--overridden", is_flag=True, help="Include pairs that have an override.")
@_ledger_options
def queue(collection: str, measure: str, limit: int, page_token: str, overridden: bool, **options: Any) -> None:
    """Show the pairs that people should look at first: where judges differ most, or where the label is least sure."""
    from qrelay.cli.labels.label_output import described_pair, printed_pair
    from qrelay.labels import review
    from qrelay.labels.nothing import why_empty

    ask = review.by_disagreement if measure == review.DISAGREEMENT else review.by_uncertainty
    with _opened(options) as (ledger, _):
        page = ask(ledger, collection, page_size=limit, page_token=page_token, overridden=overridden)
        why = "" if page.pairs or page_token else why_empty(ledger, collection, measure)
    if options["as_json"]:
        pairs = [described_pair(each) for each in page.pairs]
        echo_json({"pairs": pairs, "next_page_token": page.next_page_token, "why_empty": why})
        return
    for pair in page.pairs:
        click.echo(printed_pair(pair, measure))
    _say_next(len(page.pairs), "pairs", page.next_page_token, why)


@contextmanager
def _opened(options: dict[str, Any]) -> Iterator[tuple[Ledger, str]]:
    """The ledger that the options name, and the author."""
    import getpass

    with open_ledger(options["ledger_url"], options["data_dir"], options["config"]) as (ledger, settings):
        yield ledger, options.get("author") or settings.override_author or getpass.getuser()


def _no_override(collection: str, options: dict[str, Any]) -> str:
    """Why a list of overrides is empty; "" behind its last page."""
    if options["page_token"]:
        return ""
    names = {"query_id": "--query-id", "by": "--author", "standing": "--standing"}
    if narrowed := [option for name, option in names.items() if options[name]]:
        return f"none fits {', '.join(narrowed)}"
    return f"no override of {collection or 'any collection'} yet; `qrelay label set` and `label import` make them"


def _write_annotated_pairs(path: Path, collection: str, scale: str, options: dict[str, Any]) -> None:
    if not collection:
        raise click.UsageError("--slice needs --collection")
    if options["query_id"] or options["by"] or options["page_token"]:
        raise click.UsageError(
            "--slice writes all of a collection's: leave --query-id, --author and --page-token out"
        )
    from qrelay.labels.people_pairs import write_annotated_pairs

    with _opened(options) as (ledger, _), ledger.snapshot() as snapshot:
        written = write_annotated_pairs(snapshot, collection, path, scale)
    if options["as_json"]:
        echo_json({"file": str(path), "rows": written.rows, "without_text": written.without_text,
                    "scale": written.scale})  # fmt: skip
        return
    lacking = f"; {written.without_text} have no text in the ledger and are left out" if written.without_text else ""
    click.echo(f"{path}: {written.rows} graded pairs on the scale {written.scale}{lacking}")


def _say_written(written: Written, word: str, as_json: bool) -> None:
    if as_json:
        echo_json(_counts(written))
        return
    outside = "; the passage is no candidate of the query: qrels will hold it, training data cannot"
    click.echo((word + outside * bool(written.not_candidates)) if written.added else "stood already: nothing changed")


def _say_imported(file: Path, found: Imported, as_json: bool) -> None:
    for each in found.bad:
        click.echo(f"{file}:{each.number}: {each.problem}", err=True)
    if as_json:
        bad = [{"line": each.number, "problem": each.problem} for each in found.bad]
        counts = _counts(found.written) if found.written else None
        left_out = {"ungraded": found.ungraded, "unjudged": found.unjudged}
        echo_json({"format": found.format, "written": counts, "bad": bad, **left_out})
        return
    ungraded = f", {found.ungraded} rows without a grade left out" if found.ungraded else ""
    if found.unjudged:
        ungraded += f", {found.unjudged} documents without a judged passage left out"
    if found.written is None:
        click.echo(f"nothing imported: {len(found.bad)} bad lines{ungraded}; fix them, or use --skip-bad", err=True)
        return
    skipped = f", {len(found.bad)} bad lines skipped" if found.bad else ""
    count = found.written.not_candidates
    outside = f", {count} of them of passages that are no candidates of their query" if count else ""
    click.echo(
        f"{file} ({found.format}): {found.written.added} imported{outside},"
        f" {found.written.unchanged} stood already{skipped}{ungraded}"
    )


def _counts(written: Written) -> dict[str, int]:
    return {"added": written.added, "unchanged": written.unchanged, "not_candidates": written.not_candidates}


def _say_next(shown: int, what: str, token: str, why_none: str) -> None:
    if token:
        click.echo(f"more {what}: --page-token {token}")
    elif not shown:
        click.echo(f"no {what}: {why_none}" if why_none else f"no {what} are left")
