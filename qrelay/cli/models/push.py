"""`qrelay models push`: a version to a Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.models.options import opened, registry_options, say

if TYPE_CHECKING:
    from qrelay.models.registry.registry import Registry

_CARD = "README.md"
_MANIFEST = "qrelay-manifest.json"


@click.command(epilog=example("qrelay models push bi-encoder-3f9a1c --repo me/docs-bi-encoder --dry-run"))
@click.argument("version")
@click.option("--repo", required=True, help="Model repository, owner/name; made where there is none.")
@click.option(
    "--dataset", "datasets", multiple=True, help="Dataset repository that its data was pushed to, for the card."
)
@click.option("--public", is_flag=True, help="Make a new repository public.  [default: private]")
@click.option("--dry-run", is_flag=True, help="List what would leave this machine, and contact nobody.")
@registry_options
def push(
    version: str,
    repo: str,
    datasets: tuple[str, ...],
    public: bool,
    dry_run: bool,
    folder: Path | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Push VERSION with a card: its training data, who judged them, and the gate's table. Private unless --public.

    Needs a token with write access: `hf auth login`, or HF_TOKEN. An interrupted push resumes when it is
    run again.
    """
    from tempfile import TemporaryDirectory

    from qrelay.models.pushing import check_repo, leaving, push_folder
    from qrelay.models.registry.describe import full_version

    check_repo(repo)
    registry = opened(folder, data_dir, config)
    version = full_version(registry, version)
    registry.verify(version)
    with TemporaryDirectory(prefix="qrelay-push-", dir=_beside(registry)) as temporary:
        place = Path(temporary)
        _gather(registry, version, repo, datasets, place)
        files = [{"path": each.path, "bytes": each.size, "sha256": each.sha256} for each in leaving(place)]
        found: dict[str, Any] = {"version": version, "repo": repo, "private": not public, "pushed": not dry_run,
                                 "files": files}  # fmt: skip
        if not dry_run:
            found["commit"] = push_folder(place, repo, public=public, message=version, repo_type="model")
    say(found, "\n".join(_listed(found)), as_json)


def _beside(registry: Registry) -> Path:
    """On the registry's disk, so that files are linked and not copied."""
    staging = registry.folder / "staging"
    staging.mkdir(exist_ok=True)
    return staging


def _gather(registry: Registry, version: str, repo: str, datasets: tuple[str, ...], place: Path) -> None:
    """The model's files, the card in place of its own README, and the manifest."""
    import json
    import os

    from qrelay.models.registry.card import card

    manifest, at = registry.manifest(version), registry.standing()
    model = registry.model_dir(version)
    for path in manifest.files:
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path != _CARD:
            os.link(model / path, target)
    known = at.versions[version]
    taints = registry.taints().get(version, [])
    text = card(manifest, repo=repo, state=known.state.value, gate=known.gate, tainted_by=taints, datasets=datasets)
    (place / _CARD).write_text(text, "utf8")
    (place / _MANIFEST).write_text(json.dumps(manifest.as_json(), indent=1, ensure_ascii=False), "utf8")


def _listed(found: dict[str, Any]) -> list[str]:
    size = sum(each["bytes"] for each in found["files"])
    verb = "pushed to" if found["pushed"] else "would be pushed to"
    kind = "private" if found["private"] else "public"
    lines = [f"{len(found['files'])} files, {size} bytes: {verb} the {kind} model {found['repo']}"]
    lines += [f"  {each['sha256']}  {each['bytes']:>12}  {each['path']}" for each in found["files"]]
    return [*lines, f"pushed: {found['commit']}"] if found["pushed"] else lines
