"""`qrelay models versions | show | history | tainted | verify-version`: what the registry holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.models.options import SLOT, opened, registry_options, say
from qrelay.nearest import did_you_mean
from qrelay.output import Rows
from qrelay.output import show as show_table

_CONFIGURED = "the configured model"


@click.command(
    epilog=example("qrelay models versions --slot bi_encoder", "qrelay models versions --collection medquad")
)
@click.option("--slot", type=SLOT, default=None, help="Only the versions of this slot.")
@click.option("--collection", default=None, help="Only those of this collection's own slots and of the default ones; "
              "marked is what serves it.")  # fmt: skip
@registry_options
def versions(
    slot: str | None, collection: str | None, folder: Path | None, data_dir: Path, config: Path | None, as_json: bool
) -> None:
    """List versions, the serving ones marked, with the gate's verdict and what they are tainted by.

    A slot is bi_encoder or cross_encoder, or a collection's own, such as bi_encoder:medquad.
    """
    from qrelay.models.registry.describe import versions as described

    registry = opened(folder, data_dir, config)
    rows = described(registry, slot or "", collection)
    if as_json:
        say({"registry": str(registry.folder), "versions": rows}, "", True)
    elif rows:
        show_table(_versions_table(rows))
    else:
        meant = did_you_mean(slot or "", registry.standing().slots)
        of_it = f" of {slot}" if slot else ""
        click.echo(
            f"no version{of_it} in {registry.folder}: `qrelay training run` or `qrelay rounds` makes one.{meant}"
        )


@click.command(epilog=example("qrelay models show bi-encoder-3f9a1c"))
@click.argument("version")
@registry_options
def show(version: str, folder: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Show VERSION (or what its name begins with): manifest, state, and the gate's table."""
    from qrelay.models.registry.describe import event, full_version, gate_rows, row

    registry = opened(folder, data_dir, config)
    version = full_version(registry, version)
    at, manifest = registry.standing(), registry.manifest(version)
    found = at.versions[version]
    line = row(manifest, found, at.serving(found.slot), registry.taints().get(version, []))
    report = event(found.gate) if found.gate else None
    if as_json:
        path = str(registry.model_dir(version))
        say({**line, "path": path, "manifest": manifest.as_json(), "gate_report": report}, "", True)
        return
    _print_version(line, manifest.as_json(), str(registry.model_dir(version)))
    if rows := gate_rows(found.gate):
        show_table(_gate_table(rows))


@click.command(epilog=example("qrelay models history --slot bi_encoder:medquad"))
@click.option("--slot", type=SLOT, default=None, help="Only events of this slot.")
@registry_options
def history(slot: str | None, folder: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """List the registry's events, oldest first."""
    from qrelay.models.registry.describe import event

    events = [event(each) for each in opened(folder, data_dir, config).history() if slot in (None, each.slot)]
    lines = [_event_line(each) for each in events]
    say({"events": events}, "\n".join(lines) or "nothing has happened yet", as_json)


@click.command(epilog=example("qrelay models tainted"))
@registry_options
def tainted(folder: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """List versions that were trained on a retracted judge's labels, and their descendants."""
    from qrelay.models.registry.describe import event

    registry = opened(folder, data_dir, config)
    at, taints = registry.standing(), registry.taints()
    rows: list[dict[str, Any]] = []
    lines = []
    for version, judges in taints.items():
        known = at.versions[version]
        serving = at.serving(known.slot) == version
        rows.append({"version": version, "slot": known.slot, "state": known.state.value, "serving": serving,
                     "tainted_by": judges})  # fmt: skip
        lines.append(f"{version}  {known.state.value}{', serving' if serving else ''}: {', '.join(judges)}")
    found = {"retracted": {judge: event(each) for judge, each in at.retracted.items()}, "versions": rows}
    say(found, "\n".join(lines) or "no version is tainted", as_json)


@click.command("verify-version", epilog=example("qrelay models verify-version bi-encoder-3f9a1c"))
@click.argument("version")
@registry_options
def verify_version(version: str, folder: Path | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Hash every file of VERSION and compare it with the manifest. Exit code 78: it is damaged, or pruned."""
    from qrelay.models.registry.describe import full_version

    registry = opened(folder, data_dir, config)
    version = full_version(registry, version)
    registry.verify(version)
    files = len(registry.manifest(version).files)
    say({"version": version, "verified": True, "files": files}, f"{version}: {files} files verified", as_json)


def _versions_table(rows: list[dict[str, Any]]) -> Rows:
    cells = [
        (
            "*" if row["serving"] else "", row["version"], row["slot"],
            f"{row['state']} (pruned)" if row["pruned"] else row["state"], row["parent"] or row["base"],
            row["created"], _metrics(row["metrics"]), _verdict(row["gate"]),
            ", ".join(judge[:12] for judge in row["tainted_by"]),
        )
        for row in rows
    ]  # fmt: skip
    headings = ("", "version", "slot", "state", "parent", "created", "metrics", "gate", "tainted by")
    return Rows(headings, cells, prose=("state", "metrics", "gate", "tainted by"), frame=False)


def _gate_table(rows: list[Mapping[str, Any]]) -> Rows:
    names = ("rule", "set", "metric", "queries", "baseline", "candidate", "difference", "p", "threshold")
    cells = [("pass" if row.get("passed") else "FAIL", *(_cell(row.get(name)) for name in names)) for row in rows]
    return Rows(("gate", *names), cells, prose=("threshold",), frame=False)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _verdict(gate: Mapping[str, Any] | None) -> str:
    if gate is None:
        return "not gated"
    return f"{'passed' if gate['passed'] else 'failed'} against {gate['against'] or _CONFIGURED}"


def _print_version(line: Mapping[str, Any], manifest: Mapping[str, Any], path: str) -> None:
    serving = ", serves" if line["serving"] else ""
    gone = " (pruned: the model is gone)" if line["pruned"] else ""
    click.echo(f"{line['version']}: {line['state']}{serving}, {line['slot']}{gone}")
    click.echo(f"  made {line['created']} from {line['parent'] or line['base']}, by qrelay {manifest['qrelay']}")
    click.echo(f"  model: {path}, {len(manifest['files'])} files")
    click.echo(f"  collections: {', '.join(manifest['collections']) or 'not said'}; job: {manifest['job'] or 'none'}")
    for source in manifest["data"]:
        click.echo(f"  data: {source['name']}, {source['rows']} rows, sha256 {source['sha256']}")
    for judge in manifest["judges"]:
        click.echo(
            f"  judge: {judge['hash'][:12]} {judge['strategy']} {judge['model']}@{judge['revision']},"
            f" {judge['labels']} labels"
        )
    if line["tainted_by"]:
        click.echo(f"  TAINTED by {', '.join(line['tainted_by'])}")
    if line["gate"]:
        click.echo(f"  gate: {_verdict(line['gate'])}: {line['gate']['why']}")


def _event_line(event: Mapping[str, Any]) -> str:
    detail = event["detail"]
    what = {
        "gated": f"{'passed' if detail.get('passed') else 'failed'} against {detail.get('against') or _CONFIGURED}",
        "promoted": f"instead of {detail.get('instead_of') or _CONFIGURED}",
        "rolled_back": f"from {detail.get('from')}",
    }.get(event["kind"], str(detail.get("judge", "")))
    subject = event["version"] or (f"{event['slot']}: {_CONFIGURED}" if event["slot"] else "")
    reason = f" ({detail['reason']})" if detail.get("reason") else ""
    by = f", by {event['by']}" if event["by"] else ""
    words = " ".join(each for each in (event["kind"], subject, what) if each)
    return f"{event['number']:>5}  {event['at']}  {words}{reason}{by}"
