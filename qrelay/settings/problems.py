"""What is wrong with settings, in words: the field, the value, where it came from, and what was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from qrelay.settings.secrets import masked
from qrelay.settings.sources import PREFIX

_UNKNOWN: Final = "extra_forbidden"
Written = Callable[[tuple[str, ...]], tuple[str, str]]
"""A field's path -> the section whose part of a source holds it, and where that was written."""


def problems(settings: type[BaseModel], section: str, error: ValidationError, written: Written) -> Iterator[str]:
    """A line a problem."""
    for each in error.errors():
        path = tuple(str(part) for part in each["loc"])
        part, source = written(path)
        where = ".".join((part, *path))
        if each["type"] == _UNKNOWN:
            yield f"{where}: there is no such setting{_meant(settings, path)} (from {source})"
            continue
        variable = PREFIX + "__".join((section, *path)).upper()
        said = masked(each["msg"])
        if not path:
            yield f"{section}: {said}"
            continue
        hint = "" if source == variable or any(map(str.isdigit, path)) else f"; or set {variable}"
        yield f"{where}: {said} (value {_shown(path, each['input'])} from {source}{hint})"


def _shown(path: tuple[str, ...], value: Any) -> str:
    return repr(masked({path[-1]: value})[path[-1]])


def _meant(settings: type[BaseModel], path: tuple[str, ...]) -> str:
    """The nearest name beside it; else the same name elsewhere in the section."""
    *parents, name = path
    level = _level(settings, parents)
    if level and (close := get_close_matches(name, level.model_fields, 1)):
        return f": did you mean {'.'.join((*parents, close[0]))}?"
    elsewhere = [field for field in field_names(settings) if field.rpartition(".")[2] == name]
    return f": did you mean {' or '.join(elsewhere[:3])}?" if elsewhere else ""


def _level(settings: type[BaseModel], parents: list[str]) -> type[BaseModel] | None:
    level: type[BaseModel] | None = settings
    for parent in parents:
        if level is None:
            return None
        if parent in level.model_fields:
            level = nested(level.model_fields[parent].annotation)
        # else the key of a mapping of models, whose model this level is already
    return level


def nested(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation, also inside a mapping, a list or a union; None: there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := nested(inner))), None)


def field_names(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields."""
    for name, field in settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from field_names(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
