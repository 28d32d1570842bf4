"""A run's record, `run.json`: what was trained, from which bytes, by which versions, and what came out.

It is written when the run begins and again when it ends (`state`: running, done), and keeps a folder to one run: what
goes on in it must be the same experiment on the same data.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import orjson

from qrelay.errors import ConfigError
from qrelay.files import write_atomic
from qrelay.models.home import hash_file

NAME: Final = "run.json"
_PACKAGES: Final = ("qrelay", "sentence-transformers", "transformers", "torch", "peft", "datasets")


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """path -> sha256 of its bytes."""
    return {str(path): hash_file(path) for path in paths}


def begin(out: Path, experiment: dict[str, Any], data: dict[str, str]) -> dict[str, Any]:
    """The record of a run that begins, or goes on.

    Raises:
        ConfigError: the folder holds another run, or its record is damaged.
    """
    path = out / NAME
    if path.exists():
        try:
            held: dict[str, Any] = orjson.loads(path.read_bytes())
            theirs = {"experiment": held["experiment"], "data": sorted(held["data"].values())}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is damaged ({error!r}): choose another --out, or delete {out}") from error
        ours = {"experiment": experiment, "data": sorted(data.values())}
        differing = [name for name in ours if ours[name] != theirs[name]]
        if differing:
            raise ConfigError(
                f"{out} holds a run of another {' and other '.join(differing)}: choose another --out, or delete it"
            )
        return held
    record = {"state": "running", "experiment": experiment, "data": data, "versions": versions()}
    write(out, record)
    return record


def write(out: Path, record: dict[str, Any]) -> None:
    """Keeps the record; of several processes the first one does."""
    if first_process():
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / NAME, orjson.dumps(record, option=orjson.OPT_INDENT_2))


def first_process() -> bool:
    """Whether this is the process that writes: always, without torchrun."""
    return os.environ.get("RANK", "0") == "0"


def versions() -> dict[str, str]:
    """Package -> version, of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
