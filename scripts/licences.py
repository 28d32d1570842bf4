"""Has every dependency a licence that qrelay may use? `make licences`; `make check` does it too.

    .venv/bin/python -m scripts.licences                                # exit 1 where one is unknown or not allowed
    .venv-adapters/bin/python -m scripts.licences scripts/adapters.txt  # the same of other people's tools

Asked are the packages of constraints.txt, or of the file given, that are installed here, by their own metadata.
scripts/licences.yaml is the list of what is allowed, and says of each exception why.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Final, cast

import yaml

from scripts.recipes import ROOT
from scripts.requirements import pins

_BETWEEN: Final = re.compile(r"\s+(?:AND|OR)\s+|[()]")


@dataclass(frozen=True)
class Rules:
    """scripts/licences.yaml. packages: name -> its licence."""

    allowed: frozenset[str]
    spellings: Mapping[str, str]
    packages: Mapping[str, str]


def read_rules(text: str) -> Rules:
    """Raises ValueError where an exception gives no reason."""
    found = yaml.safe_load(text)
    bare = [name for name, each in found["packages"].items() if not (each.get("why") or "").strip()]
    if bare:
        raise ValueError(f"scripts/licences.yaml: no reason (why) is given for {', '.join(bare)}")
    packages = {name: each["licence"] for name, each in found["packages"].items()}
    return Rules(frozenset(found["allowed"]), found["spellings"], packages)


def licences(metadata: Message, spellings: Mapping[str, str]) -> set[str]:
    """SPDX identifiers that a package's metadata name, spelt otherwise where nothing is known of it; empty: none."""
    if expression := metadata.get("License-Expression"):
        return _named(str(expression))
    lines = {str(each).rpartition(" :: ")[2] for each in metadata.get_all("Classifier", [])
             if str(each).startswith("License ::")}  # fmt: skip
    if known := {spellings[each] for each in lines if each in spellings}:
        return known
    field = str(metadata.get("License") or "").strip()
    return _named(spellings.get(field, field)) if field and "\n" not in field else lines


def _named(expression: str) -> set[str]:
    return {each.strip() for each in _BETWEEN.split(expression) if each.strip()}


def problem(name: str, metadata: Message, rules: Rules) -> str:
    """Why the package may not be used, or why its exception is none; "" where all is well."""
    found = licences(metadata, rules.spellings)
    refused = sorted(found - rules.allowed)
    if name in rules.packages:
        stale = found and not refused
        return f"{name} needs no exception any more: {', '.join(sorted(found))}" if stale else ""
    if not found:
        return f"{name} names no licence"
    return f"{name} has {', '.join(refused)}, which is not allowed" if refused else ""


def main(file: Path = ROOT / "constraints.txt") -> int:
    """See the module."""
    rules = read_rules((ROOT / "scripts" / "licences.yaml").read_text("utf8"))
    counted: Counter[str] = Counter()
    problems, absent = [], []
    for name in pins(file):
        try:
            metadata = cast(Message, importlib.metadata.metadata(name))
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
            continue
        told = problem(name, metadata, rules)
        problems += [told] if told else []
        counted[rules.packages.get(name) or " and ".join(sorted(licences(metadata, rules.spellings)))] += 1
    shown = ", ".join(f"{count} {name}" for name, count in counted.most_common())
    print(f"{sum(counted.values())} packages: {shown}")
    print(f"not installed here, not asked: {', '.join(absent) or 'none'}")
    for each in problems:
        print(f"{each}: replace it, or add it to scripts/licences.yaml with a reason", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:])))
