"""The wheel and the source archive of this checkout: the same files give the same bytes, wherever they are built.

    .venv/bin/python -m scripts.package [--out dist]          # `make wheel`

They are built (PEP 517, setuptools of this environment) from a copy of what git tracks or would, so nothing that lies
about in a checkout gets into them. Times in them are SOURCE_DATE_EPOCH, or the last commit's. The README becomes the
package's page, where paths lead nowhere: its links lead to the repository that pyproject.toml names ([project.urls]
Repository), or are words with the path. What is wrong with a wheel ends the command: a top-level name besides qrelay,
a file of a package that is missing.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Final

from qrelay import __version__

ROOT: Final = Path(__file__).resolve().parents[1]
NOT_SHIPPED: Final = (".md",)
"""Ends of files that the packages' folders hold for readers of the repository."""
_LINK: Final = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)\s]+)\)")
"""A link of Markdown to a file of the checkout."""


def epoch() -> int:
    """Seconds since 1970 that are written into what is built."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    return int(said or git("log", "-1", "--format=%ct"))


def git(*arguments: str) -> str:
    """What a git command says of this checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def files(*under: str) -> list[str]:
    """Paths of what git tracks or would, links included, relative to the checkout."""
    told = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *under).split("\0")
    return sorted({name for name in told if name and (ROOT / name).exists()})


def copy(target: Path) -> None:
    """Those files, with the permissions that git knows."""
    for name in files():
        source, to = ROOT / name, target / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, to, follow_symlinks=False)
        if not source.is_symlink():
            to.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def repository() -> str:
    """The repository's address, "" where pyproject.toml names none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    return str(project.get("urls", {}).get("Repository", "")).rstrip("/")


def page(text: str, address: str) -> str:
    """A README for readers without the checkout: links lead to this version at `address`; without one they are words
    with the path."""

    def absolute(link: re.Match[str]) -> str:
        words, path = link.groups()
        if address:
            return f"[{words}]({address}/blob/v{__version__}/{path})"
        return words if words == path.partition("#")[0] else f"{words} ({path})"

    return _LINK.sub(absolute, text)


def build(out: Path, seconds: int) -> tuple[Path, Path]:
    """The wheel and the source archive in `out`, times in them `seconds` since 1970. Raises CalledProcessError: the
    build failed, by what was printed."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "source", Path(folder) / "made"
        copy(source)
        readme = source / "README.md"
        readme.write_text(page(readme.read_text("utf8"), repository()), "utf8")
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(seconds)}
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(source)]
        done = subprocess.run(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, umask=0o022
        )
        if done.returncode:
            sys.stderr.write(done.stdout.decode("utf8", "replace"))
            done.check_returncode()
        (wheel,), (archive,) = made.glob("*.whl"), made.glob("*.tar.gz")
        settle(archive, seconds)
        return Path(shutil.copy(wheel, out)), Path(shutil.copy(archive, out))


def settle(archive: Path, seconds: int) -> None:
    """The archive anew, by its files alone: setuptools writes the time of day and the builder's name into it."""
    plain = io.BytesIO()
    with tarfile.open(archive) as found, tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as settled:
        for member in sorted(found.getmembers(), key=lambda each: each.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = seconds, 0, 0, "", ""
            member.mode, member.pax_headers = (0o755 if member.isdir() or member.mode & 0o100 else 0o644), {}
            settled.addfile(member, found.extractfile(member) if member.isfile() else None)
    archive.write_bytes(gzip.compress(plain.getvalue(), mtime=seconds))


def problems(wheel: Path) -> list[str]:
    """What is wrong with the wheel, in sentences."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    extra = sorted(top for top in tops - {"qrelay"} if not top.endswith(".dist-info"))
    there = {name.replace("services/", "qrelay/services/", 1) if name.startswith("services/") else name
             for name in files("qrelay", "services") if not (ROOT / name).is_symlink()}  # fmt: skip
    lacking = sorted(name for name in there - names if not name.endswith(NOT_SHIPPED))
    named = "[tool.setuptools.package-data] in pyproject.toml names what is"
    return [
        *(f"{name} is a top-level name of the wheel: only qrelay may be one" for name in extra),
        *(f"{name} is not in the wheel: {named}" for name in lacking),
    ]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    wheel, archive = build(arguments.out, epoch())
    for found in (wheel, archive):
        print(f"{found} ({found.stat().st_size // 1024} KB)")
    wrong = problems(wheel)
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
