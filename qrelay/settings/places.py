"""Relative paths in a settings file are relative to that file, whatever folder a process runs in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel

from qrelay.config import NamesFile

_MODEL_PATH: Final = "path:"
"""How settings name a model's file or folder instead of a catalogue name."""
_SQLITE: Final = "sqlite:///"


def located(settings: type[BaseModel], tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The section's raw values with every relative path made absolute. Unknown names are kept for the errors."""
    fields = settings.model_fields
    return {
        name: _located(fields[name].rebuild_annotation(), value, folder) if name in fields else value
        for name, value in tree.items()
    }


def _located(kind: Any, value: Any, folder: Path) -> Any:
    arms, marks = _arms(kind)
    if isinstance(value, str):
        if value.startswith(_MODEL_PATH):
            return _MODEL_PATH + str(folder / value.removeprefix(_MODEL_PATH))
        if Path in arms or any(mark.names(value) for mark in marks):
            return _beside(value, folder)
        return value
    for arm in arms:
        if isinstance(value, Mapping) and isinstance(arm, type) and issubclass(arm, BaseModel):
            return located(arm, value, folder)
        inner = get_args(arm)
        if isinstance(value, Mapping) and get_origin(arm) in (dict, Mapping):
            return {key: _located(inner[1], each, folder) for key, each in value.items()}
        if isinstance(value, list) and get_origin(arm) in (list, tuple):
            return [_located(inner[0], each, folder) for each in value]
    return value


def _arms(kind: Any) -> tuple[list[Any], list[NamesFile]]:
    """The plain types that a field may be, and its marks."""
    if get_origin(kind) is Annotated:
        inner, *marks = get_args(kind)
        arms, more = _arms(inner)
        return arms, [*more, *(mark for mark in marks if isinstance(mark, NamesFile))]
    if get_origin(kind) in (Union, UnionType):
        found = [_arms(arm) for arm in get_args(kind)]
        return [arm for arms, _ in found for arm in arms], [mark for _, marks in found for mark in marks]
    return [kind], []


def _beside(value: str, folder: Path) -> str:
    if not value or value.startswith(":"):  # nothing, or a word such as :none:
        return value
    if value.startswith(_SQLITE):
        return _SQLITE + str(folder / value.removeprefix(_SQLITE))
    return value if "://" in value else str(folder / value)
