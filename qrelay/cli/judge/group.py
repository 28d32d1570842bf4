"""`qrelay judge`: try a judge on a passage, look into its cache."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from qrelay.cli.group import Group, example
from qrelay.cli.judge.batch import batches, collect, submit
from qrelay.cli.judge.cache import cache
from qrelay.cli.judge.calibrate import calibrate
from qrelay.cli.judge.check import check
from qrelay.cli.judge.compare import compare
from qrelay.cli.judge.lint import lint
from qrelay.cli.judge.measure import COMMANDS
from qrelay.cli.judge.nuggets import nuggets
from qrelay.cli.judge.prefer import prefer
from qrelay.cli.judge.preview import preview
from qrelay.cli.judge.rejudge import rejudge
from qrelay.cli.judge.slice import slice_
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.judging.settings import BackendName, StrategyName
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.judging.settings import JudgeSettings
    from qrelay.llm.exchange import Message
    from qrelay.types import JudgedSet, Judgment


STRATEGIES = list(get_args(StrategyName))
BACKENDS = list(get_args(BackendName))
Named = tuple[str, str, dict[str, str]]
"""(title, text, metadata) of a passage."""


@click.group(
    cls=Group,
    epilog=example("qrelay judge try --query 'sort a dictionary' --passage 'sorted(d.items()) sorts by key'"),
)
def judge() -> None:
    """Try, measure and check the judge; inspect its cache."""


@judge.command(
    "try", epilog=example("qrelay judge try --query 'sort a dictionary' --passage 'sorted(d.items()) sorts by key'")
)
@click.option("--query", required=True, help="The query.")
@click.option("--passage", "texts", multiple=True, help="A passage; may be repeated.")
@click.option(
    "--passages",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help='Passages, one a line: plain text, or JSON with "text" and optionally "title" and "metadata".',
)
@click.option("--strategy", type=click.Choice(STRATEGIES), help="Use this instead of the setting.")
@click.option("--scale", type=click.Choice(["0-3", "1-4"]), help="Use this instead of the setting.")
@click.option("--rubric", help="A rubric: a YAML file or a shipped name, instead of --strategy and --scale.")
@click.option("--model", help="Catalogue name or path:FILE, instead of the setting.")
@click.option("--backend", type=click.Choice(BACKENDS), help="Use this instead of the setting.")
@click.option("--show-prompt/--no-prompt", default=True, help="Whether to print the prompt of the first passage.")
@data_dir_option()
@config_option()
@json_option()
def try_(
    query: str, texts: tuple[str, ...], passages: Path | None, data_dir: Path, config: Path | None, **options: Any
) -> None:
    """Judge passages for a query, without a pipeline and without the cache."""
    as_json, show_prompt = options.pop("as_json"), options.pop("show_prompt")
    if options["rubric"] and (options["strategy"] or options["scale"]):
        raise click.UsageError("--rubric says strategy and scale itself: leave --strategy and --scale out")
    found: list[Named] = [("", text, {}) for text in texts]
    named = found + (_read_passages(passages) if passages else [])
    if not named:
        raise click.UsageError("give --passage TEXT or --passages FILE")
    settings = _settings(config, data_dir, **{key: value for key, value in options.items() if value})
    judged, prompt, notes = _judge(settings, query, named)
    if as_json:
        echo_json({**_as_json(judged, prompt), "engine": notes})
    else:
        _print(judged, prompt, show_prompt)
        for word, note in notes.items():
            click.echo(f"{word}: {note}")


def _settings(config: Path | None, data_dir: Path, **changes: Any) -> JudgeSettings:
    from qrelay.judging.settings import JudgeSettings
    from qrelay.settings import load_settings

    settings = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)
    if "scale" in changes and settings.rubric:
        changes.setdefault("strategy", "graded")
    return settings.changed(**changes)


def _read_passages(file: Path) -> list[Named]:
    """Of each line that is not blank."""
    from qrelay.formats.lines import json_value, parsed, text_lines
    from qrelay.formats.records import metadata_in, title_and_text

    with metadata_in(file) as read:

        def passage(line: str) -> Named:
            if not line.lstrip().startswith("{"):
                return "", line, {}
            return *title_and_text(record := json_value(line)), read(record)

        return [found for _, found in parsed(file, text_lines(file), passage)]


def _judge(
    settings: JudgeSettings, query: str, named: list[Named]
) -> tuple[JudgedSet, list[Message], dict[str, str]]:
    """The judgments, what was asked about the first passage, and what is to be known of the engine."""
    from qrelay.errors import QrelayError
    from qrelay.judging.cache import NoCache
    from qrelay.judging.load import load_judge, notebook_of
    from qrelay.types import Candidate, CandidateSet, Passage, Query

    query_record = Query("try", query, "try")
    passages = [Passage(f"#{n}", f"#{n}", *each) for n, each in enumerate(named, 1)]
    candidates = tuple(Candidate(passage, ()) for passage in passages)
    core = load_judge(settings, NoCache(), notebook=notebook_of(settings))
    try:
        (answer,) = asyncio.run(core.judge([CandidateSet(query_record, candidates, "")]))
        notes = dict(core.backend.notes)
    finally:
        core.close()
    if isinstance(answer, QrelayError):
        raise answer
    return answer, core.strategy.example(query_record, passages[0]), notes


def _as_json(judged: JudgedSet, prompt: list[Message]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "judge": asdict(judged.judgments[0].judge),
        "messages": prompt,
        "judgments": [
            {
                "passage_id": each.passage_id,
                "judgment_key": each.judgment_key,
                "outcome": asdict(each.outcome),
                "raw_reply": each.raw_reply,
                "reason": each.reason,
                "prompt_tokens": each.prompt_tokens,
            }
            for each in judged.judgments
        ],
    }


def _print(judged: JudgedSet, prompt: list[Message], show_prompt: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if show_prompt:
        for message in prompt:
            console.rule(message["role"], style="dim")
            console.print(Text(message["content"]))
        console.rule(style="dim")
    rows = []
    for candidate, each in zip(judged.candidate_set.candidates, judged.judgments, strict=True):
        title = candidate.passage.title or candidate.passage.text
        rows.append((f"{each.passage_id} {title[:40]}", *_cells(each), str(each.prompt_tokens)))
    headings = ("passage", "grade", "P(relevant)", "expected", "entropy", "probabilities", "tokens")
    show(Rows(headings, rows, prose=("passage", "probabilities")))
    for each in judged.judgments:
        if each.reason:
            console.print(Text(f"{each.passage_id} {each.reason}"))
    console.print(Text(f"judge {judged.judgments[0].judge.fingerprint}", style="dim"))


def _cells(judgment: Judgment) -> list[str]:
    from qrelay.types import Missing

    outcome = judgment.outcome
    if isinstance(outcome, Missing):
        return ["missing", "", "", "", f"{outcome.reason}: {outcome.detail}"]
    shown = "  ".join(f"{outcome.min_grade + i}: {p:.3f}" for i, p in enumerate(outcome.probabilities))
    return [
        str(outcome.grade),
        f"{outcome.p_relevant:.3f}",
        f"{outcome.expected_relevance:.2f}",
        f"{outcome.entropy:.2f}",
        shown,
    ]


for command in (
    *COMMANDS,
    batches,
    cache,
    calibrate,
    check,
    collect,
    compare,
    lint,
    nuggets,
    prefer,
    preview,
    rejudge,
    slice_,
    submit,
):
    judge.add_command(command)
