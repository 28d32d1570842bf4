"""The folders of versions: put in place whole, hashed, verified, and emptied of a model that nobody needs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Final

from qrelay.errors import InputError, ModelError, UnknownVersion
from qrelay.files import fsync_path, write_atomic
from qrelay.models.home import hash_file
from qrelay.models.registry.manifest import Manifest, from_json
from qrelay.models.registry.staging import Staging
from qrelay.runtime import faults

_MANIFEST: Final = "manifest.json"
_MODEL: Final = "model"
_NAME: Final = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Versions:
    """`<registry>/versions`. What lies here counts only where the history knows it."""

    def __init__(self, folder: Path, staging: Staging) -> None:
        self._folder = folder
        self._staging = staging

    def model_dir(self, version: str) -> Path:
        """The folder of the version's model. Raises UnknownVersion: no version is called so."""
        return self._home(version) / _MODEL

    def _home(self, version: str) -> Path:
        """The version's folder, inside the registry whatever the name is: it comes from commands and calls."""
        if not _NAME.fullmatch(version):
            raise UnknownVersion(
                f"the registry {self._folder.parent} has no version {version[:80]!r}: no version is called so"
            )
        return self._folder / version

    def manifest(self, version: str) -> Manifest:
        """Raises UnknownVersion: there is no such version. ModelError: its manifest is damaged."""
        path = self._home(version) / _MANIFEST
        try:
            return from_json(path.read_bytes(), str(path))
        except (FileNotFoundError, NotADirectoryError):
            raise UnknownVersion(
                f"the registry {self._folder.parent} has no version {version!r}: `qrelay models versions` lists them"
            ) from None

    def verify(self, version: str) -> None:
        """Raises ModelError that names every file whose bytes are not the manifest's."""
        folder, wrong = self.model_dir(version), []
        for path, sha256 in self.manifest(version).files.items():
            file = folder / path
            if not file.is_file():
                wrong.append(f"{path} is missing")
            elif hash_file(file) != sha256:
                wrong.append(f"{path} has other bytes")
        if wrong:
            raise ModelError(
                f"version {version} in {self._folder.parent} is damaged: {'; '.join(wrong)}; roll back, or restore it"
            )

    def put(self, model: Path, manifest: Manifest) -> None:
        """The version's folder, whole or not there. Of a version that is here without its model, the model."""
        home = self._home(manifest.version)
        if not home.exists():
            self._put_home(model, manifest, home)
        elif not self.model_dir(manifest.version).exists():
            staged = self._staging.path(manifest.version)
            _copy(model, staged)
            _place(staged, self.model_dir(manifest.version))

    def model_bytes(self, version: str) -> int:
        """Bytes of the version's model on disk; 0 where it was dropped."""
        return sum(path.stat().st_size for path in self.model_dir(version).rglob("*") if path.is_file())

    def drop_model(self, version: str) -> int:
        """Removes the version's model and returns its bytes; 0 where it is gone already. The manifest stays."""
        model = self.model_dir(version)
        if not model.exists():
            return 0
        size = self.model_bytes(version)
        dropped = self._staging.path(f"dropped-{version}")
        model.rename(dropped)  # at once: no half of a model is ever in place
        fsync_path(model.parent)
        shutil.rmtree(dropped)
        return size

    def _put_home(self, model: Path, manifest: Manifest, home: Path) -> None:
        staged = self._staging.path(manifest.version)
        _copy(model, staged / _MODEL)
        write_atomic(staged / _MANIFEST, json.dumps(manifest.as_json(), indent=1, ensure_ascii=False))
        self._folder.mkdir(exist_ok=True)
        faults.point("registry.version.staged")
        _place(staged, home)
        faults.point("registry.version.placed")


def hashes(model: Path) -> dict[str, str]:
    """Path in the model's folder -> sha256. Raises InputError where it is no model's folder."""
    files = sorted(path for path in model.rglob("*") if path.is_file()) if model.is_dir() else []
    if not any(path.name == "config.json" for path in files):
        raise InputError(f"{model} is no model's folder: it has no config.json")
    return {path.relative_to(model).as_posix(): hash_file(path) for path in files}


def _copy(model: Path, target: Path) -> None:
    """Copies the folder, durably; makes the target's parents."""
    shutil.copytree(model, target)
    for path in [*sorted(target.rglob("*")), target]:
        fsync_path(path)


def _place(staged: Path, home: Path) -> None:
    try:
        staged.rename(home)
    except OSError:
        if not home.exists():
            raise
        shutil.rmtree(staged)  # another process has published the same version
    fsync_path(home.parent)
