"""What qrelay requires: the extras of pyproject.toml, what they install, and the pins of constraints.txt."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.recipes import ROOT


@cache
def project() -> dict[str, Any]:
    """pyproject.toml's table [project]."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    return found


@cache
def extras() -> dict[str, list[Requirement]]:
    """Every extra's requirements as they stand there."""
    return {name: [*map(Requirement, texts)] for name, texts in project()["optional-dependencies"].items()}


@cache
def pins(file: Path = ROOT / "constraints.txt") -> dict[str, str]:
    """What a file pins: canonical name -> version."""
    lines = (line.split("#")[0].strip() for line in file.read_text("utf8").splitlines())
    pairs = (line.split(";")[0].strip().partition("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, _, version in pairs}


def named(names: Iterable[str]) -> set[str]:
    """The distributions that these extras and qrelay itself name, extras of extras included; canonical names."""
    found: set[str] = {canonicalize_name(Requirement(text).name) for text in project()["dependencies"]}
    waiting = list(names)
    while waiting:
        for requirement in extras()[waiting.pop()]:
            if requirement.name == "qrelay":
                waiting += requirement.extras
            else:
                found.add(canonicalize_name(requirement.name))
    return found


def installs(names: Iterable[str], markers: Mapping[str, str] | None = None) -> set[str]:
    """Every distribution that pip would install for these extras, by the metadata of what is installed here; markers:
    the environment of another machine, on which nothing is known of what is not installed here.

    Raises:
        PackageNotFoundError: without markers, one of them is not installed.
    """
    waiting = [Requirement(f"qrelay[{name}]") for name in names] + [*map(Requirement, project()["dependencies"])]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, wanted = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name == "qrelay":
            waiting += [each for extra in wanted for each in extras()[extra] if _there(each, markers, ())]
        elif (name, wanted) not in seen:
            seen.add((name, wanted))
            waiting += [each for each in _needs(name, absent=markers is not None) if _there(each, markers, wanted)]
    return {name for name, _ in seen}


def _there(requirement: Requirement, markers: Mapping[str, str] | None, wanted: Iterable[str]) -> bool:
    environments: list[dict[str, str]] = [{**(markers or {}), "extra": extra} for extra in ("", *wanted)]
    return requirement.marker is None or any(map(requirement.marker.evaluate, environments))


def _needs(name: str, *, absent: bool) -> list[Requirement]:
    """absent: it need not be installed."""
    try:
        return [*map(Requirement, importlib.metadata.requires(name) or ())]
    except importlib.metadata.PackageNotFoundError:
        if absent:
            return []
        raise
