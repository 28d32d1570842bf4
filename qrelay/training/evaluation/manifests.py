"""What an export of qrelay says of its labels, so that nobody has to say it again: judges, scale, relevant grade.

A file's manifest is `<file>.manifest.json` beside it; a folder's is `manifest.json` in it, and names its files. An
export counts grades from the lowest of the scale: on 1-4 the relevant grade 3 is written 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qrelay.errors import ConfigError, MalformedInput
from qrelay.models.home import hash_file
from qrelay.parsing import json_document

_MANIFEST: Final = "manifest.json"
_PARENTS: Final = 2
"""Folders above a file that may be its export: `qrels/test.tsv` lies in `qrels`, and that in the export."""
JudgeFacts = Mapping[str, str]
"""A judge's identity as `qrelay.types.JudgeIdentity` has it: at least `model`; "" where nothing is known."""
_IDENTITY: Final = ("model", "revision", "quantisation", "strategy", "scale", "prompt_hash", "decoding")


@dataclass(frozen=True, slots=True)
class Manifest:
    """judges: their identities. relevant_grades: scale -> the least relevant grade on it, as far as it says so.
    sha256: file within the export -> hash; a single file has the name "". collection: "" where it does not say."""

    path: Path
    judges: tuple[JudgeFacts, ...]
    relevant_grades: Mapping[str, int]
    sha256: Mapping[str, str]
    collection: str = ""

    @property
    def relevant_from(self) -> int:
        """The least relevant grade as the export counts grades; 1 where it names no judge.

        Raises:
            ConfigError: a scale without a known relevant grade, or scales that differ in it.
        """
        from qrelay.scales import RELEVANT_GRADE, Scale, known

        names, grades = {judge["scale"] for judge in self.judges}, {**RELEVANT_GRADE, **self.relevant_grades}
        if unknown := [name for name in names if not known(name, grades)]:
            raise ConfigError(f"the scale {min(unknown)} has no known least relevant grade: say --relevant-from")
        scales = [Scale.named(name, grades) for name in names]
        found = {scale.relevant_grade - scale.min_grade for scale in scales}
        if len(found) > 1:
            raise ConfigError(f"the scales {self.scales} differ in what is relevant: say --relevant-from")
        return found.pop() if found else 1

    @property
    def scales(self) -> str:
        """The judges' scales, for people."""
        return ", ".join(sorted({judge["scale"] for judge in self.judges}))


def read_manifest(path: Path) -> Manifest | None:
    """The manifest at `path`; None where there is none. Raises MalformedInput: it is no export's."""
    try:
        found = json_document(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MalformedInput(f"cannot read {path}: {error}") from error
    try:
        files = found.get("files") or {}
        return Manifest(
            path,
            tuple({key: str(judge.get(key) or "") for key in _IDENTITY} for judge in found.get("judges", [])),
            dict(found.get("relevant_grades") or {}),
            {name: str(told["sha256"]) for name, told in files.items()} if isinstance(files, dict) else {},
            str(found.get("collection") or ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedInput(f"{path} is not the manifest of an export of qrelay") from error


def manifest_in(folder: Path) -> Manifest | None:
    """Of the export that the folder is, if it is one."""
    return read_manifest(folder / _MANIFEST)


def manifest_of(qrels: Path) -> tuple[Manifest, bool] | None:
    """The manifest of the export that the file is of, and whether the file has the bytes that were exported; None
    where it is of none."""
    beside = read_manifest(qrels.with_name(f"{qrels.name}.{_MANIFEST}"))
    found = [(beside, "")] if beside else []
    for folder in list(qrels.absolute().parents)[:_PARENTS]:
        path = folder / _MANIFEST
        inside = read_manifest(path) if _ours(path) else None
        found += [(inside, qrels.absolute().relative_to(folder).as_posix())] if inside else []
    named = ((each, name) for each, name in found if name in each.sha256)
    return next(((each, each.sha256[name] == hash_file(qrels)) for each, name in named), None)


def relevant_from(given: int | None, qrels: Path) -> tuple[int, str]:
    """(the least relevant grade, what to tell of it, empty for nothing): what was given, else what the manifest of
    the export says, else 1.

    Raises:
        ConfigError: nothing was given, and the manifest does not say it, or is of other bytes.
    """
    known = manifest_of(qrels)
    if known is None:
        return given or 1, ""
    manifest, same = known
    if given is None and not same:
        raise ConfigError(
            f"{qrels} has other bytes than {manifest.path} was written for: export it again, or say --relevant-from"
        )
    try:
        told = manifest.relevant_from
    except ConfigError:
        if given is None:
            raise
        return given, ""
    if given is None:
        return told, f"relevant from grade {told}, as {manifest.path} says (scale {manifest.scales})"
    if given != told:
        words = f"{manifest.path} says {told} (scale {manifest.scales}, grades counted from 0)"
        return given, f"--relevant-from {given} is used, but {words}"
    return given, ""


def _ours(path: Path) -> bool:
    """Whether it may be an export's manifest: other tools have files of that name, and they are not refused."""
    try:
        found = json_document(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"format", "collection", "judges", "files"} <= found.keys()
