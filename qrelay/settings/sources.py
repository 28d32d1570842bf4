"""What settings are read from: files, and the variables of an environment; and which data folder they are for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from qrelay.config import SECTIONS
from qrelay.errors import ConfigError
from qrelay.parsing import yaml_document
from qrelay.rundir import DATA_DIR_VARIABLE

PREFIX: Final = "QRELAY_"
_DATA_DIR_SETTING: Final = "QRELAY_ALL__DATA_DIR"
CONFIG_VARIABLE: Final = "QRELAY_CONFIG"
FILE_NAME: Final = "qrelay.yaml"
RECORD_NAME: Final = "settings.yaml"
TUNED_NAME: Final = "tuned.yaml"
DEFAULT_DATA_DIR: Final = Path(".qrelay")

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Settings from one place. name: of the place, for people. folder: what its relative paths are relative to.
    names: "section.field" -> where that value was written, for values that came here from elsewhere."""

    name: str
    sections: Mapping[str, Tree]
    folder: Path
    names: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def origin(self, section: str, path: tuple[str, ...]) -> str | None:
        """Where this source has the value of a section's field from; None: it says nothing of it."""
        for part in (section, "all"):
            if has(self.sections.get(part, {}), path):
                return self.written(part, path)
        return None

    def without(self, fields: Iterable[tuple[str, str]]) -> Source:
        """The same but for these (section, field)."""
        left = set(fields)
        return self._kept(lambda section, name: (section, name) not in left)

    def only(self, fields: Iterable[tuple[str, str]]) -> Source:
        """Of these (section, field) what it says, and no problem of the rest."""
        kept = set(fields)
        return replace(self._kept(lambda section, name: (section, name) in kept), problems=())

    def _kept(self, wanted: Callable[[str, str], bool]) -> Source:
        sections = {
            section: {name: value for name, value in tree.items() if wanted(section, name)}
            for section, tree in self.sections.items()
        }
        return replace(self, sections=sections)

    def written(self, part: str, path: tuple[str, ...]) -> str:
        """Where a value of the section `part` itself was written: the nearest name, that of a mapping's first entry,
        else this source's."""
        for length in range(len(path), 0, -1):
            if name := self.names.get(".".join((part, *path[:length]))):
                return name
        entries = ".".join((part, *path, ""))
        return next((name for key, name in self.names.items() if key.startswith(entries)), self.name)


def has(tree: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether the tree holds something at the path."""
    node: Any = tree
    for name in path:
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def overlay(base: Tree, over: Mapping[str, Any]) -> None:
    """Puts `over` into `base`, mappings field by field."""
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            overlay(base[key], value)
        else:
            base[key] = _copied(value)


def _copied(value: Any) -> Any:
    return {key: _copied(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def read_file(file: Path, *, nested: bool = False) -> Source:
    """The settings of a file: sections at its top, or (a record, tuned.yaml) under `settings`. nested: the latter.

    Raises:
        ConfigError: it cannot be read, or is not YAML.
    """
    try:
        document = yaml_document(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    folder = file.absolute().parent
    names: Mapping[str, str] = {}
    if isinstance(document, dict) and (nested or "settings" in document):
        given = document.get("from")
        names = {str(key): f"{file} (from {name})" for key, name in given.items()} if isinstance(given, dict) else {}
        document = document.get("settings")
    if not isinstance(document, dict | None):
        return Source(str(file), {}, folder, problems=(f"{file}: unknown sections (not a mapping); {_there_are()}",))
    sections = {str(name): part for name, part in (document or {}).items() if part is not None}
    return Source(str(file), _known(sections), folder, names, _section_problems(sections, str(file)))


def _known(sections: Mapping[str, Any]) -> dict[str, Tree]:
    return {name: part for name, part in sections.items() if name in SECTIONS and isinstance(part, dict)}


def _section_problems(sections: Mapping[str, Any], name: str) -> tuple[str, ...]:
    unknown = sorted(set(sections) - set(SECTIONS))
    found = [f"{name}: unknown sections {', '.join(unknown)}{_meant(unknown)}; {_there_are()}"] if unknown else []
    found += [
        f"{name}: {part} must be a mapping of fields, not {value!r}"
        for part, value in sections.items()
        if part in SECTIONS and not isinstance(value, dict)
    ]
    return tuple(found)


def _there_are() -> str:
    return f"there are {', '.join(SECTIONS)}"


def _meant(words: list[str]) -> str:
    found = [close for word in words for close in get_close_matches(word.lower(), SECTIONS, 1)]
    return f" (did you mean {', '.join(found)}?)" if found else ""


def read_environment(environ: Mapping[str, str]) -> Source:
    """The settings of the QRELAY_SECTION__FIELD variables. Relative paths are the current folder's."""
    sections: dict[str, Tree] = {}
    names: dict[str, str] = {}
    problems: list[str] = []
    for variable in sorted(environ):
        section, mark, rest = variable.removeprefix(PREFIX).partition("__")
        if not variable.startswith(PREFIX) or not mark or "_" in section:
            continue
        if section.lower() not in SECTIONS:
            problems.append(f"{variable}: unknown sections {section}{_meant([section])}; {_there_are()}")
            continue
        try:
            value = _parse(environ[variable])
        except ValueError as error:
            problems.append(f"{variable} is not YAML: {str(error).splitlines()[0]}")
            continue
        path = rest.lower().split("__")
        names[".".join((section.lower(), *path))] = variable
        for name in reversed(path):
            value = {name: value}
        overlay(sections.setdefault(section.lower(), {}), value)
    return Source("the environment", sections, Path.cwd(), names, tuple(problems))


def _parse(text: str) -> Any:
    """Lists and mappings are written as YAML; everything else stays text for pydantic to convert."""
    return yaml_document(text) if text[:1] in "[{" and text else text


def named_file(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file that was named: asked for, else by QRELAY_CONFIG."""
    return file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)


def found_file() -> Path | None:
    """The settings file that lies in the current folder."""
    return Path(FILE_NAME) if Path(FILE_NAME).is_file() else None


def settings_file(file: Path | None, environ: Mapping[str, str]) -> Source | None:
    """The settings file: named, else found. Raises ConfigError: it cannot be read."""
    chosen = named_file(file, environ) or found_file()
    return read_file(chosen) if chosen else None


def data_folder(file: Source | None, environ: Mapping[str, str]) -> tuple[Path, str]:
    """The folder of this installation's state where no `--data-dir` names one, and who says so: QRELAY_DATA_DIR, else
    QRELAY_ALL__DATA_DIR, else `all.data_dir` of the file, else `.qrelay` in the current folder."""
    for variable in (DATA_DIR_VARIABLE, _DATA_DIR_SETTING):
        if environ.get(variable):
            return Path(environ[variable]), variable
    stated = file.sections.get("all", {}).get("data_dir") if file else None
    return (file.folder / str(stated), file.name) if file and stated else (DEFAULT_DATA_DIR, "default")


def default_data_dir(config: Path | None = None) -> Path:
    """The data folder where no `--data-dir` names one: QRELAY_DATA_DIR, else QRELAY_ALL__DATA_DIR, else
    `all.data_dir` of the settings file, else `.qrelay` in the current folder. Raises ConfigError."""
    return data_folder(settings_file(config, os.environ), os.environ)[0]
