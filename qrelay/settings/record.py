"""The installation's record, `<data_dir>/settings.yaml`: what the last `qrelay up` was given, and what differs now.

    settings: {judge: {model: …}, sink: {qualification: /srv/judges/report.json}}
    from: {judge.model: QRELAY_JUDGE__MODEL, sink.qualification: /srv/qrelay.yaml}

Values are those that a file or a variable set, even where they equal the default (they must win over tuned.yaml),
with absolute paths. It may hold a password of a URL, so only its owner may read it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from qrelay.config import SECTIONS, ServiceSettings
from qrelay.errors import BackendUnavailable, ConfigError
from qrelay.files import AtomicFiles
from qrelay.parsing import yaml_document
from qrelay.rundir import DATA_DIR_VARIABLE
from qrelay.settings.effective import Classes, Effective, has_free_names, leaves, renewed
from qrelay.settings.secrets import masked
from qrelay.settings.sources import (
    CONFIG_VARIABLE,
    PREFIX,
    RECORD_NAME,
    Tree,
)

_HEAD: Final = "# Written by qrelay: the settings that services run with. Change your own qrelay.yaml instead.\n"
_PLACES: Final = frozenset(
    {
        "data_dir",
        "run_dir",
        "replica",
        "nats.url",
        "nats.nkey_seed",
        "bind",
        "grpc.bind",
        "telemetry.metrics_bind",
        "ledger",
    }
)
"""Where one process finds or puts things, which its starter says: no difference between installations."""
_NOT_RECORDED: Final = ("data_dir", "run_dir")
_SHOWN: Final = 6
"""Differences named in a line, at most."""
_ON_DATABASES: Final = ("sink", "judge", "console")
_PASSWORDS: Final = {"PGPASSWORD", "PGPASSFILE"}
Leaf = tuple[str, ...]
_told: set[str] = set()


def write_record(effective: Effective, classes: Classes) -> None:
    """Records what `effective` holds of its file, its variables and an earlier record.

    Raises:
        BackendUnavailable: the data folder cannot be written.
    """
    write_settings(effective.data_dir / RECORD_NAME, replace(effective, tuned=None), classes)


def write_settings(path: Path, given: Effective, classes: Classes) -> None:
    """A file of all that `given` sets, which only its owner may read. Raises BackendUnavailable: not writable."""
    trees = {section: _recorded(given, classes.get(section, ServiceSettings), section) for section in SECTIONS}
    common = trees["all"]
    beyond = {
        section: tree if section == "all" else _without(classes.get(section, ServiceSettings), tree, common)
        for section, tree in trees.items()
    }
    document = {
        "settings": {section: tree for section, tree in beyond.items() if tree},
        "from": {
            ".".join((section, *leaf)): _plain_origin(given.origin(section, leaf))
            for section, tree in beyond.items()
            for leaf, _ in _raw_leaves(tree)
        },
    }
    try:
        with AtomicFiles() as files:
            file = files.open(path)
            os.fchmod(file.fileno(), 0o600)
            file.write((_HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)).encode())
            files.commit()
    except OSError as error:
        raise BackendUnavailable(f"cannot write {path}: {error.strerror}") from error


def _recorded(given: Effective, settings: type[ServiceSettings], section: str) -> Tree:
    tree = given.tree(settings, section)
    return {name: value for name, value in tree.items() if name not in _NOT_RECORDED}


def _plain_origin(origin: str) -> str:
    """Without the record that it came through."""
    return origin.rpartition(" (from ")[2].removesuffix(")")


def _raw_leaves(tree: Mapping[str, Any], prefix: Leaf = ()) -> Iterator[tuple[Leaf, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _raw_leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def _without(kind: Any, tree: Tree, common: Mapping[str, Any]) -> Tree:
    """What the tree has beyond, or other than, the common one. kind: its settings class. A mapping by free names is
    kept whole, because it replaces the common one where it is read."""
    kept: Tree = {}
    fields = getattr(kind, "model_fields", {})
    for name, value in tree.items():
        inside = fields[name].annotation if name in fields else None
        if name not in common:
            kept[name] = value
        elif isinstance(value, dict) and isinstance(common[name], Mapping) and not has_free_names(inside):
            if inner := _without(inside, value, common[name]):
                kept[name] = inner
        elif value != common[name]:
            kept[name] = value
    return kept


def recorded_environ(environ: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """The environment of a service of `qrelay up`: its settings are the record's, and no variable's beside."""
    settings = tuple(f"{PREFIX}{section.upper()}__" for section in SECTIONS)
    kept = {name: value for name, value in environ.items() if not name.startswith(settings)}
    return {**kept, CONFIG_VARIABLE: str(data_dir / RECORD_NAME), DATA_DIR_VARIABLE: str(data_dir)}


def own_environ(environ: Mapping[str, str], data_dir: Path, service: str) -> dict[str, str]:
    """The environment without what other services alone need: variables that the record names for their keys, and the
    databases' password."""
    named = {section: set(_key_variables(tree)) for section, tree in _record(data_dir).items()}
    own = set().union(*(names for section, names in named.items() if section in ("all", service)))
    others = set().union(*named.values()) - own
    if service not in _ON_DATABASES:
        others |= _PASSWORDS
    return {name: value for name, value in environ.items() if name not in others}


def _record(data_dir: Path) -> Tree:
    """Section -> what is recorded for it; nothing before the first record."""
    record = data_dir / RECORD_NAME
    tree = yaml_document(record.read_bytes()) if record.exists() else {}
    return tree.get("settings") or {}


def _key_variables(tree: Any) -> Iterator[str]:
    """Values of settings that name a variable with a credential."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if name.endswith("_env") and isinstance(value, str):
            yield value
        yield from _key_variables(value)


def changes(effective: Effective, classes: Classes) -> list[str]:
    """What `qrelay up` says of its settings beside a record, a line each: that it goes on with them, for want of a
    file; and what changes against them. Empty: there is no record, or the file says the same."""
    if effective.record is None:
        return []
    origin = f"settings: as recorded in {effective.record.name}; no file was given, and there is none here"
    before, after = _recorded_alone(effective), renewed(effective)
    sections: dict[tuple[Leaf, str, str, str], list[str]] = {}
    for section, each in classes.items():
        try:
            old = leaves(before.settings(each, section))
        except ConfigError:  # a record of another version: it is written anew
            continue
        for leaf, value in leaves(after.settings(each, section)).items():
            if leaf not in old or old[leaf] == value or leaf[0] in _NOT_RECORDED:
                continue
            change = (leaf, _shown(leaf, old[leaf]), _shown(leaf, value), after.origin(section, leaf))
            sections.setdefault(change, []).append(section)
    changed = [
        f"changed: {', '.join(names)}: {'.'.join(leaf)} was {old}, is now {new} ({source})"
        for (leaf, old, new, source), names in sections.items()
    ]
    return changed if effective.file else [origin, *changed]


def _recorded_alone(effective: Effective) -> Effective:
    return replace(effective.without_variables(), file=None, named=False)


def difference(effective: Effective, settings: type[ServiceSettings], section: str) -> str | None:
    """One line on how the section's settings here differ from those that the services run with; None: they do not."""
    if effective.record is None:
        return None
    if effective.shadowed:
        return _found_differs(effective, settings, section)
    here = leaves(effective.settings(settings, section))
    try:
        running = leaves(_recorded_alone(effective).settings(settings, section))
    except ConfigError:
        return None
    found = [
        f"{section}.{'.'.join(leaf)} is {_shown(leaf, value)} here ({effective.origin(section, leaf)}), "
        f"{_shown(leaf, running[leaf])} there"
        for leaf, value in here.items()
        if value != running[leaf] and ".".join(leaf) not in _PLACES
    ]
    return (found and (
        f"note: this command's settings are not those that `qrelay up` recorded in {effective.record.name}: "
        f"{_few(found)}"
    )) or None  # fmt: skip


def _found_differs(effective: Effective, settings: type[ServiceSettings], section: str) -> str | None:
    assert effective.record and effective.shadowed
    file, record = effective.shadowed.name, effective.record
    in_force = leaves(effective.settings(settings, section))
    running = leaves(replace(effective, file=None).settings(settings, section))
    try:
        theirs = leaves(replace(effective, record=None).settings(settings, section))
    except ConfigError as error:
        return f"note: {file} does not hold and is not in force ({record.name} is): {' '.join(str(error).split())}"
    found = [
        f"{section}.{'.'.join(leaf)} is {_shown(leaf, theirs[leaf])} there"
        + (
            f", {_shown(leaf, value)} in force"
            if in_force[leaf] != theirs[leaf]
            else f" and holds for commands, but is {_shown(leaf, value)} in the services"
        )
        for leaf, value in running.items()
        if value != theirs[leaf] and ".".join(leaf) not in _PLACES and not _by_variable(effective, section, leaf)
    ]
    return (found and (
        f"note: {file} differs from {record.name}, which the services run with and which is in force here: "
        f"{_few(found)}; `qrelay down` and `qrelay up` take the file's"
    )) or None  # fmt: skip


def _by_variable(effective: Effective, section: str, leaf: Leaf) -> bool:
    """Whether a variable was recorded over the file's value: the file need not have changed for them to differ."""
    assert effective.record
    return _plain_origin(effective.record.origin(section, leaf) or "").startswith(PREFIX)


def _few(found: list[str]) -> str:
    more = f"; and {len(found) - _SHOWN} more (`qrelay config` shows all)" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _shown(leaf: Leaf, value: Any) -> str:
    return "unset" if value in (None, "") else json.dumps(masked({leaf[-1]: value})[leaf[-1]], ensure_ascii=False)


def tell(effective: Effective, settings: type[ServiceSettings], section: str) -> None:
    """Says the difference on standard error, once in a process."""
    line = difference(effective, settings, section)
    if line and line not in _told:
        _told.add(line)
        print(line, file=sys.stderr)
