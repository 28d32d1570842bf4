"""A release, from a tag of this checkout to all that is published: a rehearsal, unless it is told to publish.

    .venv/bin/python -m scripts.release v0.1.0                # `make release TAG=v0.1.0`
    .venv/bin/python -m scripts.release v0.1.0 --publish      # then does what the rehearsal shows

Into build/release/TAG go dist/ (wheel, source archive), images/ (recipes, and images.json with the command of each),
sbom/, site/ (where there is an mkdocs.yml), notes.md (the changelog's section) and SHA256SUMS. Refused are a tree
with changes, a tag that is not this commit's or not the version's, and a changelog without a dated section of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qrelay import __version__
from scripts import package
from scripts.package import ROOT, git

CHANGELOG: Final = ROOT / "CHANGELOG.md"
TWINE: Final = ROOT / ".venv-supply" / "bin" / "twine"


def refusals(tag: str) -> Iterator[str]:
    """Why this tag of this checkout cannot be released, all at once."""
    if changed := git("status", "--porcelain"):
        yield f"the tree has changes, commit them or take them back:\n{changed}"
    if tag not in git("tag", "--points-at", "HEAD").split():
        yield f"{tag} is no tag of this commit: check out the one that it names, or make it (git tag {tag})"
    if tag != f"v{__version__}":
        yield f"{tag} is not the tag of version {__version__}, which qrelay/__init__.py names: that is v{__version__}"
    if not notes(__version__):
        yield f"CHANGELOG.md has no section '## {__version__} (YEAR-MONTH-DAY)' with text: write what is new"


def notes(version: str) -> str:
    """The changelog's section of a version, without its heading; "" where there is none with a date and a text."""
    heading = rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$"
    found = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", CHANGELOG.read_text("utf8"), re.MULTILINE | re.DOTALL)
    return found[1].strip() if found else ""


def assemble(out: Path) -> None:
    """All that is published, into the folder `out`. Raises SystemExit, CalledProcessError: a part is not made."""
    from scripts import images, sbom

    wheel, archive = package.build(out / "dist", package.epoch())
    if wrong := package.problems(wheel):
        raise SystemExit("\n".join(wrong))
    subprocess.run([TWINE, "check", "--strict", wheel, archive], check=True)
    shutil.copytree(ROOT / "deploy" / "docker", out / "images")
    told = images.origin()
    described = [each.described(told) for each in images.images()]
    (out / "images" / "images.json").write_text(json.dumps(described, indent=2) + "\n", "utf8")
    sbom.write(out / "sbom")
    if (ROOT / "mkdocs.yml").exists():
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out / "site")]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
    said = package.page(notes(__version__), package.repository())
    (out / "notes.md").write_text(f"# qrelay {__version__}\n\n{said}\n", "utf8")
    sums = [f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.relative_to(out)}\n" for each in _files(out)]
    (out / "SHA256SUMS").write_text("".join(sums), "utf8")


def _files(out: Path) -> list[Path]:
    return sorted(each for each in out.rglob("*") if each.is_file())


def publishing(tag: str, out: Path) -> list[list[str]]:
    """The commands that publish, in order: what can be taken back comes first."""
    dist = sorted(str(each) for each in (out / "dist").iterdir())
    return [[sys.executable, "-m", "scripts.images", "--build"], ["git", "push", "origin", tag],
            [str(TWINE), "upload", *dist]]  # fmt: skip


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag")
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    if refused := list(refusals(arguments.tag)):
        print("\n".join(refused), file=sys.stderr)
        return 1
    out = ROOT / "build" / "release" / arguments.tag
    shutil.rmtree(out, ignore_errors=True)
    assemble(out)
    print(f"{out}: {len(_files(out))} files")
    for command in publishing(arguments.tag, out):
        print(("$ " if arguments.publish else "would run: ") + shlex.join(command), flush=True)
        if arguments.publish:
            subprocess.run(command, cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
