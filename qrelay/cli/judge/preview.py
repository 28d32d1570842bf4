"""`qrelay judge preview`: a small sample first, and what the whole feed would cost."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.judging.preview import Estimate, Preview, Scored
    from qrelay.judging.settings import JudgeSettings
    from qrelay.types import CandidateSet, Judgment, Query

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_SHOWN_PAIRS = 10
_SHOWN_CHARS = 60
_PER_QUERY = 25.0
"""The reranker's own default sample."""


@click.command(
    "preview", epilog=example("qrelay judge preview --queries queries.jsonl --collection docs --feed-size 10000")
)
@click.option("--n", "pairs", default=30, show_default=True, type=click.IntRange(1), help="Pairs to judge.")
@click.option("--sets", type=_FILE, help="JSONL: query, text, and if you like title, metadata, reference_answers.")
@click.option("--slice", "slice_", type=_FILE, help="TSV of annotated pairs (`qrelay judge slice`).")
@click.option(
    "--queries", type=_FILE, help="Queries to ask of the running retriever and reranker, with --collection."
)
@click.option("--collection", help="The corpus that --queries are asked of.")
@click.option("--feed-size", type=click.IntRange(1), help="Queries of the whole feed, for the estimate.")
@click.option("--per-query", type=float, help="Judged passages a query.  [default: as sampled, or reranker.sample]")
@data_dir_option()
@config_option()
@json_option()
def preview(
    pairs: int, feed_size: int | None, per_query: float | None, config: Path | None, as_json: bool, **source: Any
) -> None:
    """Judge a small sample: prompts, scores, failures, speed, and the cost of the whole feed.

    Nothing is taken from the cache or put into it: tokens and speed are those of the work itself.
    """
    from qrelay.judging.cache_records import NO_CACHE
    from qrelay.judging.load import load_core, notebook_of
    from qrelay.judging.preview import estimate, examples, sampled
    from qrelay.judging.preview import preview as run

    settings = _settings(config, source["data_dir"])
    found, marked = _sets(source)
    chosen = sampled(found, pairs)
    core = load_core(settings.model_copy(update={"cache": NO_CACHE}), notebook=notebook_of(settings))
    try:
        seen = asyncio.run(run(core, chosen))
    finally:
        core.close()
    price = settings.budget.price_per_million_tokens
    size = per_query or marked or _reranker_sample(config, source["data_dir"])
    whole = estimate(seen, feed_size, size, price) if feed_size else None
    prompts = examples(settings, chosen)
    if as_json:
        echo_json(_as_json(seen, whole, prompts))
    else:
        _print(seen, whole, prompts, price)


def _settings(config: Path | None, data_dir: Path) -> JudgeSettings:
    """The settings, but without budget."""
    from qrelay.judging.budget_settings import BudgetSettings
    from qrelay.judging.settings import JudgeSettings
    from qrelay.settings import load_settings

    settings = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)
    price = BudgetSettings(price_per_million_tokens=settings.budget.price_per_million_tokens)
    return settings.model_copy(update={"budget": price})


def _sets(source: dict[str, Any]) -> tuple[list[CandidateSet], float]:
    """The candidate sets, and how many passages a query they mark for the judge (0: they are no reranker's)."""
    given = [name for name in ("sets", "slice_", "queries") if source[name]]
    if len(given) != 1 or bool(source["queries"]) != bool(source["collection"]):
        raise click.UsageError("give one of --sets FILE, --slice FILE, or --queries FILE with --collection")
    if source["sets"]:
        from qrelay.judging.preview import read_pairs

        return read_pairs(source["sets"]), 0.0
    if source["slice_"]:
        from qrelay.formats.annotated_pairs import read_annotated_pairs
        from qrelay.judging.qualification.table import candidate_sets

        return candidate_sets(read_annotated_pairs(source["slice_"]), {}), 0.0
    from qrelay.cli.judge import clients

    found = clients.candidate_sets(source["data_dir"], _queries(source["queries"], source["collection"]))
    return found, sum(each.sampled for one in found for each in one.candidates) / len(found)


def _queries(file: Path, collection: str, count: int = 6) -> list[Query]:
    """Some queries of a feed file, drawn by a fixed seed."""
    import random

    from qrelay.formats.lines import byte_lines, parsed
    from qrelay.formats.queries import parse_line
    from qrelay.judging.preview import SEED

    lines = list(byte_lines(file))
    if not lines:
        raise click.UsageError(f"{file} holds no queries")
    drawn = random.Random(SEED).sample(lines, min(count, len(lines)))
    return [query for _, query in parsed(file, drawn, lambda line: parse_line(line, collection))]


def _reranker_sample(config: Path | None, data_dir: Path) -> float:
    """The reranker's setting, read without the reranker: it may not be installed beside the judge."""
    from qrelay.config import ServiceSettings
    from qrelay.settings import find

    return float(find(config, data_dir).tree(ServiceSettings, "reranker").get("sample", _PER_QUERY))


def _as_json(seen: Preview, whole: Estimate | None, prompts: dict[str, Any]) -> dict[str, Any]:
    return {
        "queries": seen.queries,
        "pairs": seen.pairs,
        "seconds": seen.seconds,
        "pairs_per_s": seen.pairs_per_s,
        "tokens_a_pair": seen.tokens_a_pair,
        "judges": [asdict(each) for each in seen.judges],
        "scored": [asdict(each) for each in seen.scored],
        "prompts": prompts,
        "estimate": asdict(whole) if whole else None,
    }


def _print(seen: Preview, whole: Estimate | None, prompts: dict[str, Any], price: float) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for name, messages in prompts.items():
        console.rule(f"{name}: the first pair", style="dim")
        for message in messages:
            console.print(Text(f"{message['role']}: {message['content']}"))
    headings = ("query", "passage", "labels")
    show(Rows(headings, [_row(each) for each in seen.scored[:_SHOWN_PAIRS]], prose=headings))
    for judge in seen.judges:
        grades = "  ".join(f"{grade}: {count}" for grade, count in judge.grades.items()) or "none"
        missing = ", ".join(f"{count} {reason}" for reason, count in judge.missing.items()) or "none"
        console.print(
            Text(f"{judge.judge}: grades {grades}; missing {missing}; {judge.tokens / judge.pairs:.0f} tokens")
        )
    console.print(f"{seen.pairs} pairs of {seen.queries} queries in {seen.seconds:.1f} s: "
                  f"{seen.pairs_per_s:.2f} pairs/s, {seen.tokens_a_pair:.0f} prompt tokens a pair")  # fmt: skip
    if whole:
        money = f", {whole.money:.2f} in money" if price else ""
        console.print(f"whole feed: {whole.queries} queries, {whole.pairs} pairs, {whole.tokens} tokens{money}, "
                      f"{whole.hours:.1f} hours on one replica")  # fmt: skip


def _row(each: Scored) -> tuple[str, str, str]:
    return each.query[:_SHOWN_CHARS], (each.title or each.text)[:_SHOWN_CHARS], "\n".join(map(_label, each.judgments))


def _label(judgment: Judgment) -> str:
    from qrelay.types import Missing

    outcome = judgment.outcome
    if isinstance(outcome, Missing):
        return f"{judgment.judge.strategy}: missing, {outcome.reason}"
    return f"{judgment.judge.strategy}: {outcome.grade} (P {outcome.p_relevant:.3f})"
