"""`qrelay judge compare`: two judges beside people, on the same annotated pairs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.judge.pairs import judge_settings, judged_pairs, pairs_options
from qrelay.cli.options import config_option, json_option
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.judging.settings import JudgeSettings, MemberSettings


@click.command(
    "compare", epilog=example("qrelay judge compare graded-0-3 helpdesk.yaml --slice graded.tsv --relevant-from 2")
)
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@pairs_options
@config_option()
@json_option()
def compare(one: str, other: str, config: Path | None, as_json: bool, **options: Any) -> None:
    """Which of two judges agrees better with people, and is the difference more than chance?

    A and B are judges of `judge.judges`, rubric files, or shipped rubrics; a rubric is asked of the configured
    engine and model. Both label the same pairs, from the cache where they can. Differences are A less B: AUC, AUC
    within queries, kappa, each with a 95 % interval and tests that are paired by query.
    """
    from qrelay.judging.qualification.compare import compared
    from qrelay.judging.report.write import without_nan

    settings = judge_settings(config, options["data_dir"])
    names = _names(one, other)
    judges = {name: _member(settings, source) for name, source in zip(names, (one, other), strict=True)}
    table = asyncio.run(judged_pairs(settings.changed(judges=judges), options))
    found = compared(table, *names)
    if as_json:
        echo_json(without_nan(found))
    else:
        _print(found)


def _names(one: str, other: str) -> tuple[str, str]:
    """What the two are called: files by their names, unless these are the same."""
    if one == other:
        raise click.UsageError(f"{one} twice: give two judges")
    short = Path(one).stem, Path(other).stem
    return short if short[0] != short[1] else (one, other)


def _member(settings: JudgeSettings, source: str) -> MemberSettings:
    """The judge of that name, else the configured engine with that rubric."""
    from qrelay.judging.settings import MemberSettings

    if source in settings.judges:
        return settings.judges[source]
    if source in settings.members():
        return MemberSettings()
    return MemberSettings(rubric=source)


def _print(found: dict[str, Any]) -> None:
    rows = []
    for each in found["measures"]:
        low, high = each["ci"]
        numbers = [f"{each[key]:.3f}" for key in ("a", "b")]
        test = f", Fisher {each['p_fisher']:.4f}" if "p_fisher" in each else ""
        difference = f"{each['difference']:+.3f} ({low:+.3f} to {high:+.3f})"
        rows.append((each["measure"], *numbers, difference, f"{each['p']:.4f}{test}"))
    show(Rows(("measure", found["a"], found["b"], "A less B, 95%", "p (A no better)"), rows))
    missing = ", ".join(f"{name} {count}" for name, count in found["missing"].items())
    click.echo(
        f"{found['pairs']} pairs of {found['queries']} queries, {found['relevant']} relevant from grade "
        f"{found['relevant_from']}; missing: {missing}"
    )
