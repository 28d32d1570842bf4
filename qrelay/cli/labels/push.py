"""`qrelay push`: an export to a Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.labels.export import remarks, selection_options, warn
from qrelay.cli.labels.frame import progress
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.labels.exports.catalogue import FORMATS
from qrelay.labels.opening import open_ledger
from qrelay.output import echo_json


@click.command(epilog=example("qrelay push --repo me/docs-labels --collection docs --dry-run"))
@click.option("--repo", required=True, help="Dataset repository, owner/name; made where there is none.")
@click.option(
    "--format", "kind", type=click.Choice(list(FORMATS)), default="hf", show_default=True, help="What to push."
)
@click.option("--public", is_flag=True, help="Make a new repository public.  [default: private]")
@click.option("--dry-run", is_flag=True, help="List what would leave this machine, and contact nobody.")
@click.option("--system", default="", help="Whose run --format run is.")
@selection_options()
@data_dir_option()
@config_option()
@json_option()
def push(
    repo: str, public: bool, dry_run: bool, data_dir: Path, config: Path | None, as_json: bool, **asked: Any
) -> None:
    """Export a collection and push it to a Hugging Face hub as a dataset, private unless --public.

    Needs a token with write access: `hf auth login`, or HF_TOKEN. An interrupted push resumes when it is
    run again. Training data of judges that were not measured, or fell short, is refused, as
    `qrelay export` refuses it.
    """
    from tempfile import TemporaryDirectory

    from qrelay.labels.exports.export import write_export
    from qrelay.labels.exports.request import request_of
    from qrelay.models.pushing import check_repo, leaving, push_folder

    check_repo(repo)
    with TemporaryDirectory(prefix="qrelay-push-") as temporary:
        folder = Path(temporary) / "export"
        with open_ledger(asked.pop("ledger"), data_dir, config) as (ledger, settings):
            request = request_of(settings, name=repo, **asked)
            place = folder if request.folder else folder / f"{request.collection}{request.format.suffix}"
            with progress("exporting") as on_progress:
                manifest = write_export(ledger, request, place, False, on_progress, record=False)
        warn(manifest)
        found = {"repo": repo, "private": not public, "pushed": not dry_run, "manifest": manifest}
        found["files"] = [{"path": each.path, "bytes": each.size, "sha256": each.sha256} for each in leaving(folder)]
        if not as_json:
            _list(found)
        if not dry_run:
            message = f"{manifest['rows']} rows of {manifest['queries']} queries of {manifest['collection']}"
            replaces = "data/*" if request.kind == "hf" else ""
            found["commit"] = push_folder(folder, repo, public=public, message=message, replaces=replaces)
    if as_json:
        echo_json(found)
    elif not dry_run:
        click.echo(f"pushed: {found['commit']}")


def _list(found: dict[str, Any]) -> None:
    """What leaves the machine, for people."""
    manifest, size = found["manifest"], sum(each["bytes"] for each in found["files"])
    verb = "is pushed to" if found["pushed"] else "would be pushed to"
    kind = "private" if found["private"] else "public"
    click.echo(f"{len(found['files'])} files, {size} bytes: what {verb} the {kind} dataset {found['repo']}")
    for each in found["files"]:
        click.echo(f"  {each['sha256']}  {each['bytes']:>12}  {each['path']}")
    click.echo(f"{manifest['rows']} rows of {manifest['queries']} queries, passages with their texts")
    for line in remarks(manifest):
        click.echo(line)
