"""`qrelay judge check`: what can be seen of the judges of a collection without people."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.judging.check.evidence import Evidence
    from qrelay.judging.settings import JudgeSettings
    from qrelay.models.registry.ledgerside import LedgerSide

FORMAT = "qrelay-judge-check/1"
_SUGGESTED = 20


@click.command("check", epilog=example("qrelay judge check --collection docs --known clicks.tsv --paraphrases 20"))
@click.option("--collection", required=True, help="The collection whose labels are looked at.")
@click.option("--judge", help="Whose labels count: a hash's beginning, or a strategy.  [default: as exports choose]")
@click.option(
    "--paraphrases",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Ask the configured judge again about N pairs, with changes that must not move a label; loads its model.",
)
@click.option(
    "--known",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Pairs known to be relevant: qrels, or query and passage or document a line.  [default: people's overrides]",
)
@click.option("--known-from", default=1, show_default=True, help="The least relevant grade in --known.")
@click.option("--ledger", help="Path or URL.  [default: the sink's setting, else ledger.sqlite in --data-dir]")
@click.option("--html", "html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a page too.")
@data_dir_option()
@config_option()
@json_option()
def check(
    collection: str, judge: str | None, paraphrases: int, known: Path | None, known_from: int, ledger: str | None,
    html: Path | None, data_dir: Path, config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Check labels without people: agreement with retrieval scores, of judges with each other, of one judge on
    paraphrases, and known answers among negatives.

    Reads the ledger, needs no service and changes nothing. It is a diagnosis and qualifies nothing: a judge that
    copies the retriever agrees with it best.
    """
    from qrelay.errors import ConfigError
    from qrelay.files import write_atomic
    from qrelay.judging.check.report import as_page, as_text
    from qrelay.judging.report.write import without_nan
    from qrelay.labels.lineage.side import open_side
    from qrelay.progress import shown
    from qrelay.reports import require_libraries

    require_libraries(html)
    settings = _settings(data_dir, config)
    with shown(), open_side(ledger, data_dir, config) as side:
        if side is None:
            raise ConfigError(f"there is no ledger in {data_dir}: feed queries first, or give --ledger or --data-dir")
        report = _report(side, collection, judge, (known, known_from), paraphrases, settings)
    if html:
        write_atomic(html, as_page(report).encode())
    if as_json:
        echo_json(without_nan(report))
    else:
        click.echo(as_text(report))


def _report(
    side: LedgerSide,
    collection: str,
    judge: str | None,
    known: tuple[Path | None, int],
    paraphrases: int,
    settings: JudgeSettings,
) -> dict[str, Any]:
    from qrelay.judging.check.agreement import between_judges, with_retrieval
    from qrelay.judging.check.evidence import gather
    from qrelay.judging.check.known import KnownAnswers, read_known

    file, least = known
    answers = KnownAnswers(read_known(file, least) if file else None)
    evidence = gather(side.labelled(collection, judge), side.judges(), answers)
    return {
        "format": FORMAT,
        "collection": collection,
        "queries": len(evidence.query_ids),
        "pairs": len(evidence.passages),
        "judges": _judges(evidence),
        "retrieval": with_retrieval(evidence),
        "judges_together": between_judges(evidence),
        "paraphrases": _paraphrases(side, collection, evidence, paraphrases, settings),
        "known": answers.result(),
        "qualifies": False,
    }


def _judges(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """By hash: name, what it is, labels with a grade, those that say relevant, those that an export takes."""
    import numpy as np

    return {
        hashed: {
            "name": f"{judge.strategy} {judge.model} ({hashed[:8]})",
            "strategy": judge.strategy,
            "scale": judge.scale,
            "model": judge.fingerprint,
            "labels": int((~np.isnan(evidence.p[hashed])).sum()),
            "relevant": int(np.nansum(evidence.relevant[hashed])),
            "counted": evidence.counted[hashed],
        }
        for hashed, judge in evidence.judges.items()
    }


def _paraphrases(
    side: LedgerSide, collection: str, evidence: Evidence, count: int, settings: JudgeSettings
) -> Mapping[str, Any]:
    """The pairs and their cost, and where `count` is not 0 what asking them gave."""
    from qrelay.judging.check.paraphrases import REWRITES, ask, expected_tokens, narrowed, sample

    sets = narrowed(sample(evidence, count or _SUGGESTED), lambda query_id: side.judged_set(collection, query_id))
    pairs = sum(len(each.candidate_set.candidates) for each in sets)
    tokens, versions = expected_tokens(sets), 1 + len(REWRITES)
    head = {"asked": bool(count and pairs), "sampled": pairs, "versions": versions, "expected_tokens": tokens}
    if not head["asked"]:
        return {**head, "judges": {}, "rewrites": [], "stopped": "", "failed": ""}
    from qrelay.judging.load import load_core

    price = settings.budget.price_per_million_tokens
    money = f", {tokens * price / 1e6:.2f} in money" if price else ""
    click.echo(
        f"asking about {pairs} pairs in {versions} versions: about {tokens:,} prompt tokens{money}, less what the "
        "cache holds",
        err=True,
    )
    core = load_core(settings)
    try:
        return {**head, **asyncio.run(ask(core, [each.candidate_set for each in sets]))}
    finally:
        core.close()


def _settings(data_dir: Path, config: Path | None) -> JudgeSettings:
    """The judge's settings with this installation's cache and budget, but without leaving out pairs."""
    from qrelay.judging.settings import EarlyStopSettings, JudgeSettings
    from qrelay.settings import load_settings

    settings = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)
    return settings.model_copy(update={"early_stop": EarlyStopSettings()})
