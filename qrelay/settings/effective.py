"""The settings in force: their sources in order, merged, checked, with where each value came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar, get_origin

from pydantic import BaseModel, ValidationError

from qrelay.config import ServiceSettings
from qrelay.errors import ConfigError
from qrelay.settings.places import located
from qrelay.settings.problems import problems
from qrelay.settings.sources import (
    RECORD_NAME,
    TUNED_NAME,
    Source,
    Tree,
    data_folder,
    has,
    named_file,
    overlay,
    read_environment,
    read_file,
    settings_file,
)

S = TypeVar("S", bound=ServiceSettings)
Classes = Mapping[str, type[ServiceSettings]]
"""Section -> its settings class."""

DEFAULT: Final = "default"
_GUARDS: Final = (("sink", "qualification"), ("judge", "budget"))
"""Settings that only ever forbid: stated in a file that is not in force, they hold where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Effective:
    """data_dir: the folder of the installation, data_dir_from: who says so; `moved`: it is another one than the
    settings name. file: the settings file; named: whether it was asked for, and not merely found."""

    data_dir: Path
    data_dir_from: str
    variables: Source
    moved: bool = False
    tuned: Source | None = None
    record: Source | None = None
    file: Source | None = None
    named: bool = False

    @property
    def shadowed(self) -> Source | None:
        """The file that was found, and is not in force because a record is."""
        return self.file if self.record and not self.named else None

    @property
    def sources(self) -> tuple[Source, ...]:
        """Those in force, the later winning."""
        file = self._guards() if self.shadowed else self.file
        return tuple(each for each in (self.tuned, self.record, file, self.variables) if each)

    def _guards(self) -> Source | None:
        """What the shadowed file forbids and the record is silent of: a report that was named after `qrelay up`
        guards every command at once."""
        new = [
            (section, name)
            for section, name in _GUARDS
            if has(self.shadowed.sections.get(section, {}), (name,))
            and not has(self.record.sections.get(section, {}), (name,))
        ] if self.shadowed and self.record else []  # fmt: skip
        return self.shadowed.only(new) if self.shadowed and new else None

    def settings(self, settings: type[S], section: str) -> S:
        """The section's settings. Raises ConfigError: every problem, with its field, value and source."""
        found, wrong = self._tried(settings, section)
        if found is None or wrong:
            raise _error(f"the settings of {section}", wrong, self)
        return found

    def without(self, fields: Iterable[tuple[str, str]]) -> Effective:
        """The same but for these (section, field) of its files."""
        return replace(
            self,
            tuned=self.tuned and self.tuned.without(fields),
            record=self.record and self.record.without(fields),
            file=self.file and self.file.without(fields),
        )

    def without_variables(self) -> Effective:
        """The same without the environment."""
        return replace(self, variables=replace(self.variables, sections={}, names={}, problems=()))

    def check(self, classes: Classes) -> None:
        """Raises ConfigError: every problem of every section, each once."""
        wrong = dict.fromkeys(line for section, each in classes.items() for line in self._tried(each, section)[1])
        if wrong:
            raise _error("the settings", list(wrong), self)

    def tree(self, settings: type[BaseModel], section: str) -> Tree:
        """The section's raw values, relative paths made absolute; without the data folder."""
        merged: Tree = {}
        for source in self.sources:
            for part in ("all", section):
                given = located(settings, source.sections.get(part, {}), source.folder)
                if source is not self.variables:
                    _forget_mappings(settings, merged, given)
                overlay(merged, given)
        return merged

    def origin(self, section: str, path: tuple[str, ...]) -> str:
        """Where the value of a section's field came from: a file, a variable, or `default`."""
        if path == ("data_dir",) and not self._own_data_dir(section):
            return self.data_dir_from
        found = (source.origin(section, path) for source in reversed(self.sources))
        return next((each for each in found if each), DEFAULT)

    def _tried(self, settings: type[S], section: str) -> tuple[S | None, list[str]]:
        """The settings, if they hold, and what is wrong."""
        wrong = [line for source in self.sources for line in source.problems]
        tree = self.tree(settings, section)
        if not self._own_data_dir(section):
            tree["data_dir"] = str(self.data_dir)
        try:
            return settings.model_validate(tree), wrong
        except ValidationError as error:
            return None, wrong + list(problems(settings, section, error, lambda path: self._written(section, path)))

    def _own_data_dir(self, section: str) -> bool:
        """Whether a service has a data folder of its own, by its own section."""
        return not self.moved and section != "all" and any(
            "data_dir" in source.sections.get(section, {}) for source in self.sources
        )  # fmt: skip

    def _written(self, section: str, path: tuple[str, ...]) -> tuple[str, str]:
        for length in range(len(path), 0, -1):  # a missing or a nested value: the nearest that was written
            for source in reversed(self.sources):
                for part in (section, "all"):
                    if source_has(source, part, path[:length]):
                        return part, source.written(part, path[:length])
        return section, DEFAULT


def has_free_names(kind: Any) -> bool:
    """Whether a field of this type is a mapping by names that its writer chooses."""
    return get_origin(kind) in (dict, Mapping)


def _forget_mappings(settings: type[BaseModel], merged: Tree, given: Mapping[str, Any]) -> None:
    """A file's mapping by free names (judges, relevant_grades, grants) is the whole mapping: no entry beneath it
    shows through. Variables add to it and change it."""
    for name in given.keys() & merged.keys() & settings.model_fields.keys():
        kind = settings.model_fields[name].annotation
        if has_free_names(kind):
            del merged[name]
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(merged[name], dict):
            _forget_mappings(kind, merged[name], given[name] if isinstance(given[name], Mapping) else {})


def source_has(source: Source, part: str, path: tuple[str, ...]) -> bool:
    """Whether the source's own section `part` holds something at the path."""
    node: Any = source.sections.get(part, {})
    for name in path:
        if isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, Mapping) and name in node:
            node = node[name]
        else:
            return False
    return True


def _error(whose: str, wrong: list[str], effective: Effective) -> ConfigError:
    lines = [f"{len(wrong)} problem(s) in {whose}:", *(f"  {line}" for line in wrong)]
    read = ", ".join(source.name for source in effective.sources)
    lines.append(f"read from {read}; `qrelay config` shows where each value comes from")
    return ConfigError("\n".join(lines))


def leaves(settings: BaseModel) -> dict[tuple[str, ...], Any]:
    """Every field's path and its value as in JSON; mappings of models are one value."""
    return dict(_leaves(settings, settings.model_dump(mode="json"), ()))


def _leaves(settings: BaseModel, dumped: Any, prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, dumped[name], (*prefix, name))
        else:
            yield (*prefix, name), dumped[name]


def alone(file: Path | None, environ: Mapping[str, str]) -> Effective:
    """What another process would read that has this file and these variables, and no installation on its disk."""
    named = named_file(file, environ)
    source = read_file(named) if named else None
    folder, said_by = data_folder(source, environ)
    return Effective(folder, said_by, read_environment(environ), file=source, named=True)


def find(
    file: Path | None = None, data_dir: Path | None = None, environ: Mapping[str, str] | None = None
) -> Effective:
    """What is in force for a process here. file: asked for (`--config`); data_dir: asked for (`--data-dir`).

    Raises:
        ConfigError: a file that cannot be read, or is not YAML.
    """
    environ = os.environ if environ is None else environ
    named = named_file(file, environ)
    source = settings_file(file, environ)
    folder, said_by = data_folder(source, environ)
    moved = data_dir is not None and data_dir.absolute() != folder.absolute()
    if data_dir is not None and moved:
        folder, said_by = data_dir, "--data-dir"
    record = folder / RECORD_NAME
    if named and record.exists() and named.samefile(record):  # a service of `qrelay up`
        source = named = None
    return Effective(
        folder, said_by, read_environment(environ), moved, _if_there(folder / TUNED_NAME), _if_there(record), source,
        named is not None,
    )  # fmt: skip


def _if_there(file: Path) -> Source | None:
    return read_file(file, nested=True) if file.is_file() else None


def renewed(effective: Effective) -> Effective:
    """What `qrelay up` takes: the file as it is now, without the record; where there is no file, the record."""
    return replace(effective, record=None) if effective.file else effective
