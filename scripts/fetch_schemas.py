"""The schemas of the custom resources in deploy/k8s, of the releases that scripts/schemas.yaml names.

    .venv/bin/python -m scripts.fetch_schemas [pip arguments]      # `make setup-dev` does it

Most are read from packages of models that were generated from an operator's CRDs (Apache-2.0): fetched by pip at one
version with its hash, reduced to the kinds that we use, and kept in the user's cache. None of their text is in this
repository.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.crd_models import Models, Schema
from scripts.recipes import ROOT

TABLE: Final = Path(__file__).with_name("schemas.yaml")


@dataclass(frozen=True, slots=True)
class Source:
    """One release, and where its schemas come from: a module of a package with this hash, or a file of ours."""

    upstream: str
    release: str
    released: date
    api: str = ""
    kinds: tuple[str, ...] = ()
    package: str = ""
    sha256: str = ""
    module: str = ""
    file: str = ""
    read: tuple[str, ...] = ()


def table() -> dict[str, Any]:
    """scripts/schemas.yaml."""
    found: dict[str, Any] = yaml.safe_load(TABLE.read_text("utf8"))
    return found


def sources() -> list[Source]:
    """Every release in the table."""
    lists = ("kinds", "read")
    return [Source(**{**each, **{key: tuple(each.get(key, ())) for key in lists}}) for each in table()["sources"]]


def stale(today: date, limit_days: int) -> list[str]:
    """What is too old, and what to do about it."""
    return [
        f"{each.upstream} {each.release} is {(today - each.released).days} days old, and {limit_days} are allowed: "
        f"take a newer release as the head of {TABLE.relative_to(ROOT)} says"
        for each in sources()
        if (today - each.released).days > limit_days
    ]


def cache_file() -> Path:
    """Where they are kept: `qrelay/schemas` in the user's cache folder, by the packages and their reader."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    wanted = repr([(each.sha256, each.module, each.api, each.kinds) for each in sources() if each.module])
    reader = Path(__file__).with_name("crd_models.py").read_text("utf8")
    name = sha256((wanted + reader).encode()).hexdigest()[:16]
    return Path(cache).expanduser() / "qrelay" / "schemas" / f"{name}.json"


def schemas(pip_arguments: Sequence[str] = ()) -> dict[str, Schema]:
    """JSON schemas by "GROUP/VERSION KIND"; packages are fetched where the cache has none.

    Raises:
        subprocess.CalledProcessError: pip could not fetch a package, or it has another hash.
    """
    file = cache_file()
    if not file.exists():
        fetched = {key: each for source in sources() if source.module for key, each in _fetch(source, pip_arguments)}
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_text(json.dumps(fetched), "utf8")
        unfinished.replace(file)
    kept: dict[str, Schema] = json.loads(file.read_text("utf8"))
    for source in sources():
        if source.file:
            kept |= {f"{source.api} {kind}": each for kind, each in _ours(source).items()}
    return kept


def _ours(source: Source) -> dict[str, Schema]:
    found: dict[str, Schema] = yaml.safe_load((ROOT / source.file).read_text("utf8"))
    return {kind: found[kind] for kind in source.kinds}


def _fetch(source: Source, pip_arguments: Sequence[str]) -> list[tuple[str, Schema]]:
    """The package is for a Python of its own; it is only read."""
    with tempfile.TemporaryDirectory() as made:
        wanted = Path(made) / "requirements.txt"
        wanted.write_text(f"{source.package} --hash=sha256:{source.sha256}\n", "utf8")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
        any_python = ["--only-binary", ":all:", "--python-version", "3.14"]
        subprocess.run([*pip, *any_python, *pip_arguments, "-r", str(wanted), "-d", made], check=True)
        with zipfile.ZipFile(next(Path(made).glob("*.whl"))) as wheel:
            models = Models(wheel.read(source.module).decode())
    return [(f"{source.api} {kind}", models.schema(kind)) for kind in source.kinds]


if __name__ == "__main__":
    print(f"{len(schemas(sys.argv[1:]))} schemas in {cache_file()} and the files of {TABLE.name}")
