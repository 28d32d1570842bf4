"""The model catalogue: what exists (`load_catalogue`) and where it is on this machine (`resolve`).

    entry = load_catalogue()["all-MiniLM-L6-v2"]
    model = resolve("qwen2.5-coder-1.5b-instruct")    # or resolve("path:/models/mine.gguf")
    model.path, model.revision

Nothing here downloads: that is `qrelay.models.pull`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from qrelay.errors import ConfigError, ModelError
from qrelay.models.home import check_model, file_hashes, models_dir
from qrelay.models.records import HubSource, ModelEntry, ResolvedModel, Source, revision_of
from qrelay.models.safe import pickles, require_safe
from qrelay.nearest import did_you_mean, listed
from qrelay.parsing import yaml_document

PATH_PREFIX = "path:"
RESERVED_NAMES = frozenset({"hash", "endpoint"})
"""Names of embedders that are no files: a fake, and what is asked over HTTP."""

Catalogue = Mapping[str, ModelEntry]
_ENTRY: TypeAdapter[ModelEntry] = TypeAdapter(ModelEntry)


def load_catalogue(environ: Mapping[str, str] = os.environ) -> Catalogue:
    """The packaged catalogue, and over it the file that `QRELAY_CATALOGUE` names, by model name.

    Raises ConfigError that lists every problem of the files at once.
    """
    packaged = resources.files("qrelay.models").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    catalogue = parse_catalogue(packaged, "catalogue.yaml")
    if user_file := environ.get("QRELAY_CATALOGUE"):
        try:
            text = Path(user_file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"QRELAY_CATALOGUE names {user_file}, which cannot be read ({error}). "
                "Correct the variable or unset it."
            ) from error
        catalogue |= parse_catalogue(text, user_file)
    return catalogue


def parse_catalogue(text: str, origin: str) -> dict[str, ModelEntry]:
    """The entries of one catalogue file. `origin` names it in the ConfigError that lists all problems."""
    entries: list[ModelEntry] = []
    problems: list[str] = []
    try:
        raw_entries = _raw_entries(yaml_document(text))
    except ValueError as error:
        raw_entries, problems = [], [str(error)]
    for number, raw in enumerate(raw_entries, start=1):
        try:
            entry = _ENTRY.validate_python(raw)
        except ValidationError as error:
            problems += [f"{_label(raw, number)}: {problem}" for problem in _field_problems(error)]
        else:
            entries.append(entry)
            problems += [f"{_label(raw, number)}: {problem}" for problem in _entry_problems(entry)]
    names = Counter(_label(raw, number) for number, raw in enumerate(raw_entries, start=1))
    problems += [f"{name}: the name is used {count} times" for name, count in names.items() if count > 1]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"the model catalogue {origin} has {len(problems)} problem(s), correct them:\n{listed}")
    return {entry.name: entry for entry in entries}


def find_entry(name: str, catalogue: Catalogue) -> ModelEntry:
    """The entry of this name. Raises ModelError that lists the names that exist."""
    if name not in catalogue:
        raise ModelError(
            f"no model is named '{name}'.{did_you_mean(name, catalogue)} The catalogue has: {listed(catalogue)}. "
            "A model of your own is given as 'path:/folder/or/file', or added in a file that QRELAY_CATALOGUE names."
        )
    return catalogue[name]


def multilingual_embedders(catalogue: Catalogue) -> list[str]:
    """The names of the embedding models that know many languages and scripts."""
    return [entry.name for entry in catalogue.values() if entry.task == "embedding" and entry.multilingual]


def judges(catalogue: Catalogue) -> list[ModelEntry]:
    """The judges that may be chosen for a machine, largest first: those whose weights are counted."""
    found = [entry for entry in catalogue.values() if entry.task == "judge" and entry.weights]
    return sorted(found, key=lambda entry: -entry.weights)


def smaller_judge(name: str, catalogue: Catalogue) -> ModelEntry | None:
    """The next smaller judge of the catalogue; None where there is none."""
    named = catalogue.get(name)
    return next((entry for entry in judges(catalogue) if named and entry.weights < named.weights), None)


def resolve(name_or_path: str, *, catalogue: Catalogue | None = None, home: Path | None = None) -> ResolvedModel:
    """A model that is on this machine with the right bytes; never downloads.

    name_or_path: a catalogue name, or `path:` and a file or folder.
    Raises ModelError when it is unknown, absent, has other bytes than the catalogue says, or its weights are pickles.
    """
    home = home or models_dir()
    if name_or_path.startswith(PATH_PREFIX):
        return _resolve_path(name_or_path.removeprefix(PATH_PREFIX), home)
    entry = find_entry(name_or_path, load_catalogue() if catalogue is None else catalogue)
    folder = home / entry.name
    problems = check_model(entry, folder)
    if problems and all(not problem.found for problem in problems):
        raise ModelError(
            f"the model '{entry.name}' is not in {home}. Run `qrelay models pull {entry.name}` "
            "(or set QRELAY_MODELS_DIR to where it is)."
        )
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ModelError(
            f"the model '{entry.name}' does not have the bytes that the catalogue says:\n{listed}\n"
            f"Run `qrelay models pull {entry.name}` to fetch it again."
        )
    single = len(entry.files) == 1
    path = folder / entry.files[0].path if single else folder
    return ResolvedModel(path, entry.name, entry.revision, entry.quantisation)


def _resolve_path(text: str, home: Path) -> ResolvedModel:
    path = Path(text).expanduser().resolve()
    if path.is_file():
        folder, files = path.parent, [path.name]
    elif path.is_dir():
        folder, files = path, sorted(_visible_files(path))
    else:
        raise ModelError(f"'path:{text}' names {path}, which does not exist. Correct the path.")
    if not files:
        raise ModelError(f"'path:{text}' is a folder without files. Give the folder that holds the model.")
    require_safe(path, files)
    marker = home / ".verified" / (hashlib.sha256(str(path).encode()).hexdigest()[:32] + ".json")
    hashes = file_hashes(folder, files, marker)
    name = path.stem if path.is_file() else path.name
    return ResolvedModel(path, name, revision_of(hashes), _quantisation_in(path.name))


def _visible_files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix()


def _quantisation_in(file_name: str) -> str:
    found = re.search(r"(?i)(?<![a-z0-9])(i?q\d(?:_[a-z0-9]+)*|bf16|f16|f32)(?![a-z0-9])", file_name)
    return found.group(1).lower() if found else "unknown"


def _raw_entries(loaded: Any) -> list[Any]:
    models = loaded.get("models") if isinstance(loaded, dict) else None
    if not isinstance(models, list):
        raise ValueError("the file must be a mapping with a list `models`")
    return models


def _label(raw: Any, number: int) -> str:
    name = raw.get("name") if isinstance(raw, dict) else None
    return f"model '{name}'" if name else f"model number {number}"


def _field_problems(error: ValidationError) -> Iterator[str]:
    for detail in error.errors():
        where = ".".join(str(part) for part in detail["loc"])
        yield f"{where}: {detail['msg']}" if where else detail["msg"]


def _entry_problems(entry: ModelEntry) -> Iterator[str]:
    """What a field by field check cannot see."""
    if entry.name in RESERVED_NAMES:
        yield "this name is reserved"
    paths = [file.path for file in entry.files]
    if len(set(paths)) != len(paths):
        yield "files: a path is listed twice"
    yield from (f"files: {path} may hold a pickle, which runs code: list the safetensors" for path in pickles(paths))
    for number, source in enumerate(entry.sources):
        where = f"sources.{number}"
        if (source.hub is None) == (not source.wheels):
            yield f"{where}: give exactly one of `hub` and `wheels`"
        if source.hub is not None:
            yield from (f"{where}.{problem}" for problem in _hub_problems(source.hub, paths))
        yield from (f"{where}.{problem}" for problem in _wheel_problems(source, paths))


def _hub_problems(hub: HubSource, paths: list[str]) -> Iterator[str]:
    for path in hub.files:
        if path not in paths:
            yield f"hub.files: '{path}' is not among the model's files"


def _wheel_problems(source: Source, paths: list[str]) -> Iterator[str]:
    wheels = source.wheels
    if source.zip is not None:
        if not wheels or any(wheel.is_folder for wheel in wheels):
            yield "zip: its parts must be members of `wheels`, none of them a folder"
    elif any(wheel.is_folder for wheel in wheels):
        if len(wheels) > 1:
            yield "wheels: a folder member (ending in '/') must be the only wheel"
    elif wheels and len(paths) > 1:
        yield "wheels: parts make up a single file, but the model has several; use a folder member, or `zip`"
