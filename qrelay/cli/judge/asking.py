"""What commands that ask the judge's engine beside its labels share: options, pairs, the engine with its journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from qrelay.cli.judge.pairs import source_options
from qrelay.cli.options import Decorator, config_option, data_dir_option

if TYPE_CHECKING:
    from qrelay.formats.annotated_pairs import GradedPair
    from qrelay.judging.asking import Asker
    from qrelay.judging.settings import JudgeSettings

OUT = click.Path(path_type=Path, dir_okay=False)
_Made = TypeVar("_Made")


def pairs_options(words: int = 160) -> Decorator:
    """Where passages come from, and how much of one is shown."""
    return _options(
        *source_options(
            "; also of `qrelay export beir`",
            queries="  [default: the BEIR folder's]",
            qrels="  [default: qrels/test.tsv there]",
        ),
        click.option(
            "--words",
            type=click.IntRange(1),
            default=words,
            show_default=True,
            help="Words of a text that are shown.",
        ),
    )


def engine_options() -> Decorator:
    """Which engine is asked."""
    from typing import get_args

    from qrelay.judging.settings import BackendName

    return _options(
        click.option("--model", help="Catalogue name or path:FILE, instead of the setting."),
        click.option("--backend", type=click.Choice(get_args(BackendName)), help="Use this instead of the setting."),
        data_dir_option(),
        config_option(),
    )


def _options(*options: Decorator) -> Decorator:
    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def read_pairs(given: Mapping[str, Any], answers: Path | None = None) -> list[GradedPair]:
    """The pairs that the options name."""
    from qrelay.formats.annotated_pairs import read_annotated_pairs, read_beir
    from qrelay.formats.lines import file_in

    corpus = given["corpus"]
    if given["slice_"] and not corpus:
        return read_annotated_pairs(given["slice_"], ungraded=True)
    if not corpus or given["slice_"]:
        raise click.UsageError("give --slice FILE, or --corpus with --queries and --qrels")
    if not corpus.is_dir() and not (given["queries"] and given["qrels"]):
        raise click.UsageError("--corpus is a file: give --queries and --qrels too")
    queries, qrels = given["queries"] or file_in(corpus, "queries.jsonl"), given["qrels"]
    return read_beir(
        corpus, queries, qrels or file_in(corpus, "qrels/test.tsv"), answers=answers, max_words=given["words"]
    )


def settings_of(given: Mapping[str, Any]) -> JudgeSettings:
    """The judge's settings, with the engine that the options name."""
    from qrelay.judging.settings import JudgeSettings
    from qrelay.settings import load_settings

    changes = {name: given[name] for name in ("model", "backend") if given[name]}
    found = load_settings(JudgeSettings, "judge", file=given["config"], data_dir=given["data_dir"])
    return found.changed(**changes)


def ask(
    settings: JudgeSettings,
    out: Path,
    work: Callable[[Asker, Callable[[float], None]], Coroutine[Any, Any, _Made]],
    what: str,
    total: int,
) -> _Made:
    """What `work` makes of the engine's answers; it tells how many of the `total` things in `what` are done. The
    journal lies beside `out`; what is asked counts in `judge.budget`.

    Raises:
        ConfigError: the model cannot reply in words, or a day's budget has no cache to be counted in.
        BudgetExhausted: the budget is used up.
    """
    from qrelay.judging.asking import Asker
    from qrelay.judging.budget import budget_of
    from qrelay.judging.engines import chat_engine
    from qrelay.progress import shown, step

    with shown(), ExitStack() as opened:
        if budget := budget_of(settings):
            opened.callback(budget.close)
        with step("loading the model"):
            backend = chat_engine(settings)
        try:
            with (
                Asker(backend, out.with_name(f"{out.name}.journal.jsonl"), budget=budget) as asker,
                step(what, total=total, unit=what) as told,
            ):
                return asyncio.run(work(asker, told.advance))
        finally:
            backend.close()
