"""`qrelay judge cache`: what the judgment cache holds, in figures and as a file, and how it gets smaller."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import Group, example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.output import echo_json
from qrelay.settings.secrets import masked

if TYPE_CHECKING:
    from qrelay.judging.cache import JudgmentCache
    from qrelay.judging.cache_records import CacheRecord
    from qrelay.judging.settings import JudgeSettings

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@click.group("cache", cls=Group, epilog=example("qrelay judge cache stats"))
def cache() -> None:
    """Show, prune and export the judgment cache."""


@cache.command("stats", epilog=example("qrelay judge cache stats"))
@data_dir_option()
@config_option()
@json_option()
def stats(data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Count the labels in the cache by judge."""
    settings, store = _open(data_dir, config)
    counts = store.stats()
    store.close()
    summary = {"path": _shown(settings), "labels": counts.labels, "prompt_tokens": counts.prompt_tokens}
    if as_json:
        judges = [
            {"judge_hash": each.judge_hash, "judge": each.judge.fingerprint, "strategy": each.judge.strategy,
             "scale": each.judge.scale, "labels": each.labels, "prompt_tokens": each.prompt_tokens,
             "oldest": each.oldest.isoformat(), "newest": each.newest.isoformat()}
            for each in counts.judges
        ]  # fmt: skip
        echo_json(summary | {"judges": judges})
        return
    click.echo(f"{summary['path']}: {counts.labels} labels, measured with {counts.prompt_tokens} prompt tokens")
    for each in counts.judges:
        click.echo(
            f"  {each.judge_hash[:12]}  {each.labels:>8} labels  {each.prompt_tokens:>10} tokens  "
            f"{each.oldest:%Y-%m-%d}..{each.newest:%Y-%m-%d}  {each.judge.fingerprint}  {each.judge.strategy} "
            f"{each.judge.scale}"
        )


@cache.command("prune", epilog=example("qrelay judge cache prune --older-than 90d --dry-run"))
@click.option("--judge", "judge_hash", default="", help="Only labels of the judge whose hash begins with this.")
@click.option("--older-than", metavar="AGE", help="Only labels older than this: 30d, 12h, 90m.")
@click.option(
    "--not-configured", is_flag=True, help="Only labels of judges that the settings do not name (loads them)."
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@data_dir_option()
@config_option()
@json_option()
def prune(
    judge_hash: str,
    older_than: str | None,
    not_configured: bool,
    dry_run: bool,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Remove labels for which all given options hold. They are judged again when they are next needed.

    --older-than also removes the answers of batches (backend openai-batch) that came before: until then labels that
    were removed are read from them again, for nothing. --not-configured loads the configured judges: only then are
    their identities known.
    """
    from qrelay.judging.cache_records import PruneRule

    if not re.fullmatch("[0-9a-f]*", judge_hash):
        raise click.UsageError(f"--judge {judge_hash}: give the beginning of a hash, as `cache stats` shows it")
    before = datetime.now(UTC) - _age(older_than) if older_than else None
    settings, store = _open(data_dir, config)
    rule = PruneRule(judge_hash, before, _configured(settings) if not_configured else None)
    if rule.empty:
        raise click.UsageError("say what to remove: --judge, --older-than or --not-configured")
    pruned = store.prune(rule, dry_run=dry_run)
    store.close()
    if before and not dry_run:
        _forget_answers(settings, before)
    if as_json:
        echo_json({**asdict(pruned), "dry_run": dry_run})
        return
    click.echo(
        f"{pruned.labels} labels, measured with {pruned.prompt_tokens} prompt tokens, "
        f"{'would be' if dry_run else 'were'} removed from {_shown(settings)}"
    )


@cache.command("export", epilog=example("qrelay judge cache export --out labels.jsonl"))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="JSONL file to write.")
@data_dir_option()
@config_option()
def export(out: Path, data_dir: Path, config: Path | None) -> None:
    """Every label with its judge, cost and time, one JSON object a line. Texts are not in the cache."""
    from qrelay.files import AtomicFiles

    settings, store = _open(data_dir, config)
    count = 0
    with AtomicFiles() as files:
        file = files.open(out)
        for record in _records(store):
            file.write(json.dumps(_as_json(record), ensure_ascii=False).encode("utf8", "replace") + b"\n")
            count += 1
        files.commit()
    store.close()
    click.echo(f"{out}: {count} labels of {_shown(settings)}")


def _forget_answers(settings: JudgeSettings, before: datetime) -> None:
    from qrelay.judging.batches.store import SqlBatches
    from qrelay.judging.cache_records import NO_CACHE

    if settings.cache_path == NO_CACHE:
        return
    batches = SqlBatches(settings.cache_path)
    batches.forget(before)
    batches.close()


def _records(store: JudgmentCache) -> Iterator[CacheRecord]:
    last = ""
    while page := store.records(last):
        yield from page
        last = page[-1].judgment_key


def _as_json(record: CacheRecord) -> dict[str, Any]:
    return {
        "judgment_key": record.judgment_key,
        "judge_hash": record.judge_hash,
        "judge": asdict(record.judge),
        "outcome": asdict(record.outcome),
        "raw_reply": record.raw_reply,
        "prompt_tokens": record.prompt_tokens,
        "judged_at": record.created_at.isoformat(),
    }


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if not found:
        raise click.UsageError(f"--older-than {text}: write a number and m, h or d, like 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _configured(settings: JudgeSettings) -> frozenset[str]:
    """The hashes of the judges that the settings name; known only once they are loaded."""
    from qrelay.judging.load import load_panel

    panel = load_panel(settings)
    try:
        return frozenset(hashed for judge in panel.judges.values() for hashed in judge.hashes)
    finally:
        panel.close()


def _open(data_dir: Path, config: Path | None) -> tuple[JudgeSettings, JudgmentCache]:
    from qrelay.judging.cache import open_cache
    from qrelay.judging.cache_records import NO_CACHE, POSTGRES
    from qrelay.judging.settings import JudgeSettings
    from qrelay.settings import load_settings

    settings = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)
    path = settings.cache_path
    if path != NO_CACHE and not path.startswith(POSTGRES) and not Path(path).exists():
        raise click.ClickException(f"there is no cache at {path} yet: it appears with the first label")
    return settings, open_cache(path)


def _shown(settings: JudgeSettings) -> str:
    return str(masked(settings.cache_path))
