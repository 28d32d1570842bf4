"""`qrelay relabel`: an existing training set, judged and cleaned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.labels.frame import allowing_options
from qrelay.cli.options import config_option, data_dir_option, json_file_option, json_option
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.formats.training import FORMATS
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.formats.training.detect import TrainingSet
    from qrelay.judging.core import JudgeCore
    from qrelay.judging.settings import JudgeSettings
    from qrelay.labels.permission import Usage
    from qrelay.labels.relabel.relabel import Ask
    from qrelay.labels.relabel.rules import Rules
    from qrelay.types import CandidateSet

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_SHOWN_CHARS = 300


@click.command("relabel", epilog=example("qrelay relabel train.jsonl --out clean.jsonl"))
@click.argument("source", metavar="FILE")
@click.option("--out", type=click.Path(path_type=Path), help="Write the cleaned set here.  [default: report only]")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="What FILE is.  [default: as its fields say]")
@click.option(
    "--corpus", type=_FILE, help="Texts of passages, where FILE has ids alone: JSONL, or TSV of id and text."
)
@click.option("--queries", type=_FILE, help="Texts of queries, likewise.")
@click.option("--split", default="train", show_default=True, help="Of a BEIR folder: qrels/SPLIT.tsv.")
@click.option(
    "--relevant-from", default=0.5, show_default=True, type=click.FloatRange(0, 1),
    help="The least P(relevant) at which a negative is a false one.",
)  # fmt: skip
@click.option(
    "--wrong-below", default=0.1, show_default=True, type=click.FloatRange(0, 1),
    help="The P(relevant) under which a positive is a wrong one.",
)  # fmt: skip
@click.option(
    "--negatives", default="drop", show_default=True, type=click.Choice(["drop", "promote", "keep"]),
    help="What becomes of false negatives: left out, made positives, or left as they are.",
)  # fmt: skip
@click.option(
    "--positives", default="keep", show_default=True, type=click.Choice(["keep", "drop"]),
    help="What becomes of wrong positives.",
)  # fmt: skip
@click.option(
    "--missing", default="keep", show_default=True, type=click.Choice(["keep", "drop"]),
    help="What becomes of passages that could not be judged; kept ones have no score.",
)  # fmt: skip
@click.option(
    "--scores", default="beside", show_default=True, type=click.Choice(["beside", "labels", "none"]),
    help="P(relevant) as teacher score: beside the passages, where FILE's library reads it; in place of the labels, "
    "in sets that have some; nowhere.",
)  # fmt: skip
@click.option(
    "--embedder",
    help="Also compute the dense score by this model, for a judge.calibration that reads it (fused+stages).",
)
@click.option("--examples", default=10, show_default=True, type=click.IntRange(0), help="Of either kind, to read.")
@allowing_options("Write labels")
@json_file_option()
@data_dir_option()
@config_option()
@json_option()
def relabel(
    out: Path | None, examples: int, embedder: str | None, json_file: Path | None, data_dir: Path,
    config: Path | None, as_json: bool, **asked: Any,
) -> None:  # fmt: skip
    """Judge the positives and negatives of a training set; report false negatives and wrong positives; write the set
    again without them, in its own format, with teacher scores.

    FILE is a set of sentence-transformers, Tevatron, FlagEmbedding or MS MARCO (JSONL, CSV, TSV, Parquet, a folder
    of `datasets`, hf:NAME:SPLIT), or a folder in BEIR's layout. The configured judge judges, from its cache where it
    can: a run that was stopped goes on with the same command. A manifest is written beside the output. Exit code 3:
    a budget or an endpoint ended it early, and nothing was written.
    """
    from qrelay.files import write_atomic
    from qrelay.labels.exports.files import manifest_bytes
    from qrelay.labels.relabel.rules import Rules

    rules = Rules(*(asked[name] for name in ("relevant_from", "wrong_below", "negatives", "positives", "missing")))
    usage = _usage(data_dir, config, asked)
    settings = _settings(data_dir, config)
    found = _opened(asked)
    try:
        click.echo(f"{asked['source']}: {found.layout.name}, {found.container.kind}", err=True)
        report = _judged(found, settings, rules, usage, out, examples, embedder)
    finally:
        found.close()
    if json_file:
        write_atomic(json_file, manifest_bytes(report))
    if as_json:
        echo_json(report)
    else:
        _print(report, out)
    if report["stopped"]:
        raise SystemExit(EXIT_PARTIAL)


def _opened(asked: dict[str, Any]) -> TrainingSet:
    from qrelay.formats.training.detect import open_training_set

    names = ("corpus", "queries", "scores", "split")
    return open_training_set(asked["source"], kind=asked["kind"] or "", **{name: asked[name] for name in names})


def _usage(data_dir: Path, config: Path | None, asked: dict[str, Any]) -> Usage:
    """What the installation's report says, and what was allowed."""
    from qrelay.labels.permission import Allowed, Usage
    from qrelay.labels.qualification import read_report
    from qrelay.labels.settings import SinkSettings
    from qrelay.settings import load_settings

    sink = load_settings(SinkSettings, "sink", file=config, data_dir=data_dir)
    return Usage(read_report(sink.qualification), Allowed(asked["unmeasured"], asked["unqualified"]))


def _settings(data_dir: Path, config: Path | None) -> JudgeSettings:
    """The judge's settings with this installation's cache and budget, but without leaving out passages."""
    from qrelay.judging.settings import EarlyStopSettings, JudgeSettings
    from qrelay.settings import load_settings

    settings = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)
    return settings.model_copy(update={"early_stop": EarlyStopSettings()})


def _judged(
    found: TrainingSet,
    settings: JudgeSettings,
    rules: Rules,
    usage: Usage,
    out: Path | None,
    examples: int,
    embedder: str | None,
) -> dict[str, Any]:
    """The report, after all of it. Raises BackendUnavailable: the output cannot be written."""
    from qrelay.errors import BackendUnavailable
    from qrelay.judging.load import load_core
    from qrelay.labels.relabel.relabel import Relabel
    from qrelay.progress import shown, step

    core = load_core(settings)
    try:
        with shown(), step("judging", unit="rows") as judging:
            ask, told = _asking(core, embedder), judging.advance
            run = Relabel(found, ask, rules, out=out, usage=usage, examples=examples, progress=told)
            return asyncio.run(run.run())
    except OSError as error:
        raise BackendUnavailable(
            f"cannot write {out}: {error.strerror}; nothing was changed there: free some space, or name another place"
        ) from error
    finally:
        core.close()


def _asking(core: JudgeCore, embedder: str | None) -> Ask:
    """The judge, which says so where an endpoint holds it up; and the dense scores, where they are wanted."""
    from qrelay.judging.failures import hold_of
    from qrelay.labels.relabel.dense import with_dense
    from qrelay.models.embedder import load_embedder
    from qrelay.types import JudgedSet

    model = load_embedder(embedder) if embedder else None

    async def ask(sets: Sequence[CandidateSet]) -> Any:
        answers = await core.judge(await asyncio.to_thread(with_dense, sets, model) if model else sets)
        for held in (hold_of(each) for each in answers if isinstance(each, JudgedSet)):
            if held:
                raise held
        return answers

    return ask


def _print(report: dict[str, Any], out: Path | None) -> None:
    for line in report["qualification"]["warnings"]:
        click.secho(f"warning: {line}", fg="yellow", err=True)
    for kind, about in (("false_negatives", "p_relevant"), ("wrong_positives", "p_relevant")):
        for each in report["examples"][kind]:
            click.echo(f"\n{kind.replace('_', ' ').removesuffix('s')}, P {each[about]:.3f}: {each['query']}")
            click.echo(f"  {each['docid']} {each['title']} {each['text'][:_SHOWN_CHARS]}".replace("\n", " "))
    rows = [
        (source or "all", name, *_numbers(found[kind]))
        for source, found in {"": report, **report["by_source"]}.items()
        for kind, name in (("false_negatives", "false negatives"), ("wrong_positives", "wrong positives"))
    ]
    click.echo()
    show(Rows(("source", "share of", "found", "judged", "share", "95%", "missing"), rows))
    if report["stopped"]:
        click.echo(f"stopped: {report['stopped']}; nothing was written, run the same command to go on", err=True)
    elif out:
        counts = "; ".join(f"{name.replace('_', ' ')}: {report[name]}" for name in _PRINTED if report[name])
        click.echo(f"{out}: {report['rows_written']} of {report['rows']} rows{'; ' if counts else ''}{counts}")


_PRINTED = ("rows_dropped", "positives_dropped", "negatives_dropped", "negatives_promoted", "without_score")


def _numbers(found: dict[str, Any]) -> tuple[str, str, str, str, str]:
    if found["share"] is None:
        return "", "0", "not measured", "", str(found["missing"])
    interval = f"{found['low']:.2%}-{found['high']:.2%}"
    return str(found["wrong"]), str(found["judged"]), f"{found['share']:.2%}", interval, str(found["missing"])
