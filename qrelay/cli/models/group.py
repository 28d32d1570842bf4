"""`qrelay models`: the catalogue's models (list, pull, verify), and the registry's versions.

The other modules of this folder load when their commands are called.

Exit codes: 0 all is well; 1 a model could not be pulled or did not verify; 2 wrong usage.
Results go to standard output, progress to standard error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import click
from rich.console import Console

from qrelay.cli.group import Group, example
from qrelay.cli.options import json_option
from qrelay.errors import ModelError
from qrelay.exitcodes import EXIT_FAILED
from qrelay.models.catalogue import Catalogue, load_catalogue
from qrelay.models.home import check_model, models_dir
from qrelay.models.pull import pull
from qrelay.models.records import ModelEntry
from qrelay.nearest import did_you_mean, listed
from qrelay.output import echo_json
from qrelay.progress import plainly, shown, step

_LAZY: Final = {
    "versions": "qrelay.cli.models.reading:versions",
    "show": "qrelay.cli.models.reading:show",
    "history": "qrelay.cli.models.reading:history",
    "tainted": "qrelay.cli.models.reading:tainted",
    "verify-version": "qrelay.cli.models.reading:verify_version",
    "lineage": "qrelay.cli.models.lineage:lineage",
    "promote": "qrelay.cli.models.deciding:promote",
    "rollback": "qrelay.cli.models.deciding:rollback",
    "prune": "qrelay.cli.models.deciding:prune",
    "retract-judge": "qrelay.cli.models.judges:retract_judge",
    "restore-judge": "qrelay.cli.models.judges:restore_judge",
    "push": "qrelay.cli.models.push:push",
    "prepare": "qrelay.cli.models.preparing:prepare",
    "tune": "qrelay.cli.models.preparing:tune",
    "gate": "qrelay.cli.models.gate:gate_command",
}


@click.group(
    cls=Group,
    lazy=_LAZY,
    epilog=example("qrelay models list"),
)
def models() -> None:
    """Manage the catalogue's models, and the trained versions."""


@models.command("list", epilog=example("qrelay models list"))
@json_option()
def list_models(as_json: bool) -> None:
    """Show the catalogue, and which models are on this machine."""
    rows = [_row(entry) for entry in load_catalogue().values()]
    if as_json:
        echo_json({"models_dir": str(models_dir()), "models": rows})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        size = f"{row['size_bytes'] / 1e6:>9,.1f} MB"
        click.echo(f"{row['name']:<{width}}  {row['state']:<7}  {size}  {row['task']:<9}  {row['licence']}")
        click.secho(f"  {row['description']}", dim=True)
        for each in row["measured"]:
            click.secho(f"  {each['engine']}, {each['processor']}: {each['speed']}; {each['quality']}", dim=True)
    click.echo(f"\nmodel home: {models_dir()}")


@models.command("pull", epilog=example("qrelay models pull all-MiniLM-L6-v2"))
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Pull every model of the catalogue.")
@json_option()
def pull_models(names: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Fetch models by name into the model home; what is there and intact is not fetched again."""
    catalogue = load_catalogue()
    if every == bool(names):
        raise click.UsageError("give either model names or --all; `qrelay models list` shows the names")
    entries = list(catalogue.values()) if every else _entries(names, catalogue)
    console = Console(stderr=True)
    with shown(console):
        results = [_pull_one(entry, plainly(console)) for entry in entries]
    _finish(results, as_json)


@models.command("verify", epilog=example("qrelay models verify all-MiniLM-L6-v2"))
@click.argument("names", nargs=-1)
@json_option()
def verify_models(names: tuple[str, ...], as_json: bool) -> None:
    """Hash every byte of the named models, or of all that are on this machine."""
    catalogue = load_catalogue()
    entries = _entries(names, catalogue) if names else _present(catalogue)
    with shown():
        results = [_verify_one(entry) for entry in entries]
    _finish(results, as_json)


def fetch(names: Sequence[str]) -> None:
    """Pull the named models, reporting to who listens; names that are not the catalogue's (paths, doubles) need none.

    Raises:
        ModelError: one cannot be fetched; the text lists each source with its reason.
    """
    catalogue = load_catalogue()
    for name in dict.fromkeys(names):
        if name in catalogue:
            pull(catalogue[name], say=partial(click.echo, err=True))


def _entries(names: Sequence[str], catalogue: Catalogue) -> list[ModelEntry]:
    unknown = [name for name in names if name not in catalogue]
    if unknown:
        raise click.UsageError(
            f"no such model: {', '.join(unknown)}.{did_you_mean(unknown[0], catalogue)} The catalogue has: "
            f"{listed(catalogue)}"
        )
    return [catalogue[name] for name in dict.fromkeys(names)]


def _present(catalogue: Catalogue) -> list[ModelEntry]:
    return [entry for entry in catalogue.values() if (models_dir() / entry.name).is_dir()]


def _row(entry: ModelEntry) -> dict[str, Any]:
    folder = models_dir() / entry.name
    state = "absent" if not folder.is_dir() else "damaged" if check_model(entry, folder) else "ready"
    return {
        "name": entry.name,
        "task": entry.task,
        "quantisation": entry.quantisation,
        "size_bytes": entry.size_bytes,
        "licence": entry.licence,
        "revision": entry.revision,
        "state": state,
        "path": str(folder),
        "description": entry.description,
        "measured": [asdict(each) for each in entry.measured],
    }


def _pull_one(entry: ModelEntry, say: Callable[[str], object]) -> dict[str, Any]:
    started = time.monotonic()
    try:
        pulled = pull(entry, say=say)
    except ModelError as error:
        return {"name": entry.name, "ok": False, "problem": str(error)}
    said = f"pulled from {pulled.source}" if pulled.source else "already here"
    seconds = round(time.monotonic() - started, 1)
    return {"name": entry.name, "ok": True, "path": str(pulled.path), "said": said, "seconds": seconds}


def _verify_one(entry: ModelEntry) -> dict[str, Any]:
    folder = models_dir() / entry.name
    with step(f"hashing {entry.name} ({entry.size_bytes / 1e6:,.0f} MB)"):
        problems = check_model(entry, folder, full=True)
    if not problems:
        return {"name": entry.name, "ok": True, "path": str(folder), "said": "verified"}
    listed = "\n".join(f"  - {problem}" for problem in problems)
    remedy = f"Run `qrelay models pull {entry.name}` to fetch it again."
    return {"name": entry.name, "ok": False, "problem": f"the model '{entry.name}' is not right:\n{listed}\n{remedy}"}


def _finish(results: list[dict[str, Any]], as_json: bool) -> None:
    """Print the results, and exit with 1 if any failed."""
    if as_json:
        echo_json({"models_dir": str(models_dir()), "models": results})
    else:
        for result in results:
            if result["ok"]:
                click.echo(f"{result['name']}: {result['said']} ({result['path']})")
            else:
                click.secho(f"error: {result['problem']}", fg="red", err=True)
        if not results:
            click.echo(f"no model is in {models_dir()}: `qrelay models pull NAME` fetches one")
    if not all(result["ok"] for result in results):
        raise click.exceptions.Exit(EXIT_FAILED)
