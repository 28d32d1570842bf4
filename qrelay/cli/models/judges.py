"""`qrelay models retract-judge | restore-judge`: in the registry, and in the ledger where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.models.options import author, ledger_option, opened, registry_options, say
from qrelay.errors import InputError

if TYPE_CHECKING:
    from qrelay.models.registry.ledgerside import LedgerSide
    from qrelay.models.registry.registry import Registry


@click.command("retract-judge", epilog=example("qrelay models retract-judge 3f9a1c --reason 'wrong prompt'"))
@click.argument("judge")
@click.option("--reason", required=True, help="Reason, for people.")
@click.option("--by", default=None, help="Who decides.  [default: the name of the user]")
@ledger_option
@registry_options
def retract_judge(judge: str, reason: str, by: str | None, **options: Any) -> None:
    """Withdraw all labels of JUDGE (its hash, or the beginning).

    In the ledger they no longer count in exports, mining and audits; versions trained on them are tainted and
    cannot be promoted. Nothing is deleted: `restore-judge` undoes it.
    """
    _decide(judge, True, author(by), reason, **options)


@click.command("restore-judge", epilog=example("qrelay models restore-judge 3f9a1c --reason 'measured again'"))
@click.argument("judge")
@click.option("--reason", default="", help="Reason, for people.")
@click.option("--by", default=None, help="Who decides.  [default: the name of the user]")
@ledger_option
@registry_options
def restore_judge(judge: str, reason: str, by: str | None, **options: Any) -> None:
    """Undo `retract-judge`: the labels of JUDGE count again."""
    _decide(judge, False, author(by), reason, **options)


def _decide(
    judge: str,
    retract: bool,
    by: str,
    reason: str,
    *,
    ledger: str | None,
    folder: Path | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """The ledger first: what is withdrawn there is trained on no more, whatever becomes of this process."""
    from qrelay.labels.lineage.side import open_side

    registry = opened(folder, data_dir, config)
    with open_side(ledger, data_dir, config) as side:
        place = side.where() if side else ""
        touched = _in_ledger(side, registry, judge, retract, by, reason) if side else None
    judge = touched["judge"] if touched else _known_to(registry, judge)
    change = registry.retract_judge if retract else registry.restore_judge
    changed = change(judge, by=by, reason=reason)
    taints = registry.taints()
    found = {"judge": judge, "retracted": retract, "changed": changed, "ledger": place or None, "touched": touched,
             "tainted": taints}  # fmt: skip
    say(found, "\n".join(_told(judge, retract, changed, place, touched, taints)), as_json)


def _in_ledger(
    side: LedgerSide, registry: Registry, judge: str, retract: bool, by: str, reason: str
) -> Mapping[str, Any] | None:
    """What it touched there; None where only the registry knows the judge."""
    try:
        return (side.retract if retract else side.restore)(judge, author=by, reason=reason)
    except InputError:
        if not _matching(registry, judge):
            raise
        return None


def _matching(registry: Registry, wanted: str) -> list[str]:
    """The judges of manifests and events whose hash begins so."""
    known = {judge.hash for manifest in registry.manifests().values() for judge in manifest.judges}
    return sorted(each for each in known | set(registry.standing().retracted) if wanted and each.startswith(wanted))


def _known_to(registry: Registry, wanted: str) -> str:
    found = _matching(registry, wanted)
    if len(found) != 1:
        named = f": {', '.join(each[:12] for each in found)}" if found else "; `qrelay models show` names a version's"
        raise InputError(f"{wanted!r} names {len(found)} judges of the registry{named}, and no ledger was found")
    return found[0]


def _told(
    judge: str, retract: bool, changed: bool, place: str, touched: Mapping[str, Any] | None, taints: Mapping[str, Any]
) -> list[str]:
    word = "retracted" if retract else "restored"
    lines = [f"judge {judge[:12]}: {word} in the registry" + ("" if changed else " already")]
    if touched is None and place:
        lines.append(f"{place} has no label of it")
    elif touched is None:
        lines.append("no ledger was found: its labels still count in exports; give --ledger or --data-dir")
    elif touched["changed"]:
        where = ", ".join(touched["collections"]) or "no collection"
        lines.append(f"{word} in {place}: {touched['labels']} labels of {touched['queries']} queries of {where}")
    else:
        lines.append(f"{word} in {place} already")
    lines += [f"tainted: {version} by {', '.join(each[:12] for each in by)}" for version, by in taints.items()]
    return lines
