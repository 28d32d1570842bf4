"""`qrelay models promote | rollback | prune`: what serves, and what stays."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from qrelay.cli.auditing import audited_act
from qrelay.cli.group import example
from qrelay.cli.models.options import SLOT, author, author_options, opened, registry_options, say

_CONFIGURED = "configured"


@click.command(epilog=example("qrelay models promote bi-encoder-3f9a1c --reason 'better on docs-test'"))
@click.argument("version")
@author_options
@registry_options
def promote(
    version: str, by: str | None, reason: str, folder: Path | None, data_dir: Path, config: Path | None, as_json: bool
) -> None:
    """Let VERSION serve. It must have passed the gate against the version that serves now, and must not be tainted.

    Running services switch to it by themselves.
    """
    from qrelay.models.registry.describe import full_version

    registry = opened(folder, data_dir, config)
    version = full_version(registry, version)
    slot = registry.manifest(version).slot
    with audited_act(data_dir, config, "promote", version) as told:
        changed = told.did(registry.promote(version, by=author(by), reason=reason))
    text = f"{version} serves as {slot}" if changed else f"{version} serves as {slot} already"
    say({"version": version, "slot": slot, "changed": changed}, text, as_json)


@click.command(
    epilog=example(
        "qrelay models rollback bi_encoder --reason 'slower in production'",
        "qrelay models rollback bi_encoder:medquad --to configured",
    )
)
@click.argument("slot", type=SLOT)
@click.option(
    "--to", help="A version of SLOT that served before, or `configured`: none of them.  [default: the previous one]"
)
@author_options
@registry_options
def rollback(
    slot: str,
    to: str | None,
    by: str | None,
    reason: str,
    folder: Path | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Roll SLOT back: its previous version serves again. Where it has none, the service's configured model does.

    SLOT is bi_encoder or cross_encoder, or a collection's own, such as bi_encoder:medquad. Where a collection's own
    slot has no version left, the default slot's serves it.
    """
    registry = opened(folder, data_dir, config)
    target = "" if to == _CONFIGURED else to
    with audited_act(data_dir, config, "roll back", slot):
        now = registry.rollback(slot, to=target, by=author(by), reason=reason)
    say({"slot": slot, "version": now}, f"{slot}: {now or 'the configured model'} serves", as_json)


@click.command(epilog=example("qrelay models prune --keep 3"))
@click.option("--keep", type=click.IntRange(0), required=True, help="Keep the latest N models of each slot.")
@click.option("--yes", is_flag=True, help="Delete it. Without this, only show what would be deleted.")
@click.option("--by", default=None, help="Who decides.  [default: the name of the user]")
@registry_options
def prune(
    keep: int, yes: bool, by: str | None, folder: Path | None, data_dir: Path, config: Path | None, as_json: bool
) -> None:
    """Delete the models of rejected and retired versions that nobody can roll back to.

    Manifests and history stay; a pruned version cannot be promoted until the same model is published again.
    """
    registry = opened(folder, data_dir, config)
    with audited_act(data_dir, config, "prune models", f"all but {keep}") if yes else nullcontext():
        dropped = registry.prune(keep, by=author(by), dry_run=not yes)
    lines = [f"{version}: {size / 1e6:.1f} MB" for version, size in dropped.items()]
    head = "pruned:" if yes else "would be pruned (--yes does it):"
    found = {"dry_run": not yes, "pruned": dropped}
    say(found, "\n".join([head, *lines]) if lines else "nothing to prune", as_json)
