"""`qrelay judge submit | collect | batches`: pairs judged by batches, without a service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.judge.pairs import FILE, source_options
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.judging.batches.offline import Standing
    from qrelay.judging.engines import Batches
    from qrelay.judging.settings import JudgeSettings
    from qrelay.llm.batch.records import Batch
    from qrelay.types import CandidateSet

_OUT = click.Path(path_type=Path, dir_okay=False)


def _pairs_options(command: Any) -> Any:
    """Where the pairs come from."""
    options = [
        *source_options("; with --queries and --qrels: the judged pairs"),
        click.option("--candidates", type=FILE, help="JSONL of queries with their candidates and texts."),
        click.option("--answers", type=FILE, help="JSONL of reference answers: _id, answers."),
        click.option("--max-words", default=160, show_default=True, help="Words of a BEIR document that are judged."),
        click.option("--wait", is_flag=True, help="Until no answer is on its way: minutes to a day."),
        data_dir_option(),
        config_option(),
        json_option(),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("submit", epilog=example("qrelay judge submit --slice pairs.tsv"))
@_pairs_options
@click.option("--out", type=_OUT, help="With --wait: JSONL file for the labels.")
def submit(out: Path | None, wait: bool, as_json: bool, **options: Any) -> None:
    """Order labels of pairs by OpenAI's Batch API (judge.backend: openai-batch), for half the price.

    What has its label, or is ordered, is not ordered again: run it again after whatever stopped it, and for
    strategies that ask more than once. `qrelay judge collect` brings the labels. Exit code 3: not everything could be
    sent.
    """
    found = _settled(options, "submit", wait)
    if out and wait:
        _write(out, found)
    _report(found, as_json)
    if found.held or found.elsewhere or found.missing:
        raise SystemExit(EXIT_PARTIAL)


@click.command("collect", epilog=example("qrelay judge collect --slice pairs.tsv --out labels.jsonl"))
@_pairs_options
@click.option("--out", type=_OUT, required=True, help="JSONL file for the labels that are there.")
def collect(out: Path, wait: bool, as_json: bool, **options: Any) -> None:
    """Bring the labels that were ordered into the cache, and write those of the pairs to a file.

    Orders nothing new. Exit code 3: some pairs have no label (yet): run it again, or look at `qrelay judge batches`.
    """
    found = _settled(options, "read", wait)
    _write(out, found)
    _report(found, as_json, out)
    if found.pending or found.missing:
        raise SystemExit(EXIT_PARTIAL)


@click.command("batches", epilog=example("qrelay judge batches"))
@click.option("--cancel", metavar="NAME", help="Have this batch end early; answers that it has by then are kept.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Batches to show, newest first.")
@data_dir_option()
@config_option()
@json_option()
def batches(cancel: str | None, limit: int, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Show the batches of the judges: state, requests done, age, cost.

    A batch is cancelled by whatever drives it: the judge's service, or `submit` or `collect`.
    """
    from qrelay.judging.batches.store import SqlBatches

    settings = _settings(config, data_dir)
    store = SqlBatches(settings.cache_path)
    try:
        if cancel and not any(each.name == cancel for each in store.recent(10_000)):
            raise click.UsageError(f"--cancel {cancel}: there is no such batch; `qrelay judge batches` lists them")
        if cancel:
            store.update(cancel, cancel=True)
        found = store.recent(limit)
    finally:
        store.close()
    _show(found, settings.priced_budget.price_per_million_tokens, as_json)


def _settled(options: dict[str, Any], batches: Batches, wait: bool) -> Standing:
    from qrelay.judging.batches.offline import drivers_of, settle
    from qrelay.judging.load import load_panel

    settings, sets = _settings(options["config"], options["data_dir"]), _sets(options)
    panel = load_panel(settings, batches=batches)
    try:
        if not drivers_of(panel):
            raise click.UsageError("no judge asks by batches: set judge.backend to openai-batch")
        return asyncio.run(settle(panel, sets, wait=wait, say=lambda line: click.echo(line, err=True)))
    finally:
        panel.close()


def _sets(options: dict[str, Any]) -> list[CandidateSet]:
    from qrelay.formats.annotated_pairs import read_annotated_pairs, read_beir
    from qrelay.judging.batches.offline import read_candidate_pairs
    from qrelay.judging.qualification.table import candidate_sets

    beir = [options[name] for name in ("corpus", "queries", "qrels")]
    given = [bool(options["slice_"]), bool(options["candidates"]), any(beir)]
    if sum(given) != 1 or (any(beir) and not all(beir)):
        raise click.UsageError("give one of --slice FILE, --candidates FILE, or --corpus, --queries and --qrels")
    if options["slice_"]:
        return candidate_sets(read_annotated_pairs(options["slice_"], ungraded=True), {})
    if options["candidates"]:
        return candidate_sets(read_candidate_pairs(options["candidates"]), {})
    return candidate_sets(read_beir(*beir, answers=options["answers"], max_words=options["max_words"]), {})


def _settings(config: Path | None, data_dir: Path) -> JudgeSettings:
    from qrelay.judging.settings import JudgeSettings
    from qrelay.settings import load_settings

    return load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)


def _write(out: Path, found: Standing) -> None:
    from qrelay.files import AtomicFiles
    from qrelay.judging.batches.offline import labels

    with AtomicFiles() as files:
        file = files.open(out)
        for label in labels(found):
            file.write(json.dumps(label, ensure_ascii=False).encode("utf8", "replace") + b"\n")
        files.commit()


def _report(found: Standing, as_json: bool, out: Path | None = None) -> None:
    counts = {name: getattr(found, name) for name in ("labels", "cached", "pending", "missing", "held", "elsewhere")}
    if as_json:
        echo_json({**counts, "batches": found.shown, **({"out": str(out)} if out else {})})
        return
    missing = ", ".join(f"{count} {reason}" for reason, count in sorted(found.missing.items()))
    click.echo(
        f"{found.labels} labels ({found.cached} from the cache), {found.pending} answers on their way, "
        f"{sum(found.missing.values())} missing{f' ({missing})' if missing else ''}"
        + (f"; labels in {out}" if out else "")
    )
    for line in filter(None, (found.shown, found.held)):
        click.echo(line)
    if found.elsewhere:
        click.echo("another process drives the batches of this account: it sends what waits, by its own settings")


def _show(found: Sequence[Batch], price: float, as_json: bool) -> None:
    if as_json:
        echo_json({"batches": [_as_json(each) for each in found]})
        return
    rows = [
        (each.name, each.batch_id, each.status or each.state.value, f"{each.done} of {each.requests}",
         str(each.failed), str(each.tokens), f"{each.tokens * price / 1e6:.2f}" if price else "",
         f"{each.planned_at:%Y-%m-%d %H:%M}", each.note)
        for each in found
    ]  # fmt: skip
    headings = ("batch", "at the endpoint", "state", "done", "failed", "tokens", "cost", "since (UTC)", "ended with")
    show(Rows(headings, rows, prose=("ended with",)))


def _as_json(batch: Batch) -> dict[str, Any]:
    from dataclasses import asdict

    times = {name: moment.isoformat() if (moment := getattr(batch, name)) else None
             for name in ("planned_at", "tried_at", "ended_at")}  # fmt: skip
    return {**asdict(batch), **times}
