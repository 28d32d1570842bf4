"""Files of an index, as the retriever and a later build look at them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import numpy as np

from qrelay.index.build import BuildRequest, build_index
from qrelay.index.build import _earlier as build_earlier
from qrelay.index.embedded import EmbeddedEngine
from qrelay.index.manifest import checked_manifest, collections_in, current_folder, read_manifest
from qrelay.index.milvus.layout import MANIFEST, read_kept
from qrelay.index.ranking import Depths
from qrelay.index.reembed import _earlier as reembed_earlier
from qrelay.index.reembed import find_version, under_way
from qrelay.index.vectors import VectorReuse
from qrelay.models.embedder import load_embedder
from tests.fuzz.parser import Parser, beside, constant
from tests.index.documents import made_up, write_jsonl


@cache
def _index() -> Path:
    """An index of a few documents, made once."""
    folder = Path(mkdtemp(prefix="qrelay-fuzz-index-"))
    rows = [{**row, "metadata": {"source": row["title"]}} for row in made_up(5)]
    source = write_jsonl(folder / "tiny.jsonl", rows)
    build_index(
        BuildRequest(str(source), "tiny", folder / "index", window=40, stride=20),
        load_embedder("hash"),
        lambda _: None,
    )
    return folder / "index" / "tiny"


def _copied_index(folder: Path) -> None:
    shutil.copytree(_index(), folder / "tiny", dirs_exist_ok=True)


def _version() -> str:
    return current_folder(_index()).name


def _served(folder: Path) -> None:
    """As the retriever and a later build look at it."""
    home = folder / "tiny"
    collections_in(folder)
    under_way(home, "hash@1")
    VectorReuse([*home.glob("[!.]*"), *home.glob(".*")])
    version = current_folder(home)
    find_version(home, read_manifest(_index() / _version()), "other@1")
    engine = EmbeddedEngine(version, Depths(5, 5, 60), "size")
    facts = checked_manifest(version, "full")  # a flipped bit in the middle of an array is this one's to find
    engine.search(["word1 word2"], np.zeros((1, facts.dim), np.float32), 3)


def _index_file(name: str) -> Parser:
    path = name.replace("VERSION", _version())
    form = "json" if name.endswith(".json") else "bytes"
    seeds = lambda _: [(_index() / path).read_bytes()]  # noqa: E731
    return Parser(
        f"index: {name.rpartition('/')[2]}", form, seeds, beside(_copied_index, f"tiny/{path}", _served), cost=5
    )


def _kept_in_milvus(data: bytes, _: Path) -> None:
    read_kept("any", {MANIFEST: data.decode("utf8", "replace")})


def _interrupted(folder: Path) -> None:
    """An index whose build another one goes on with."""
    home = folder / "tiny"
    reembed_earlier(home, home / ".reembed-y", "hash@1")
    build_earlier(home / ".build-y", "hash@1")


def _begun(name: str, folder: str, read: Callable[[Path], None]) -> Parser:
    """What an index that is being made says of itself."""
    seed = constant('{"embedder": "hash@1", "documents": 5, "passages": 7}')
    return Parser(name, "json", seed, beside(_copied_index, f"tiny/{folder}/.scaffold/chunked.json", read), cost=5)


PARSERS: Final = (
    Parser(
        "manifest in Milvus",
        "json",
        lambda _: [read_manifest(_index() / _version()).model_dump_json(exclude={"files"}).encode()],
        _kept_in_milvus,
    ),
    *map(
        _index_file,
        (
            "CURRENT",
            "VERSION/manifest.json",
            "VERSION/documents.npy",
            "VERSION/texts.npy",
            "VERSION/passages.npy",
            "VERSION/hashes.npy",
            "VERSION/order.npy",
            "VERSION/vectors.npy",
            "VERSION/documents.bin",
            "VERSION/texts.bin",
            "VERSION/metadata.npy",
            "VERSION/metadata.bin",
            "VERSION/bm25/params.index.json",
            "VERSION/bm25/vocab.index.json",
        ),
    ),
    _begun("re-embedding under way", ".reembed-x", _served),
    _begun("interrupted build", ".build-x", _interrupted),
    _begun("interrupted re-embedding", ".reembed-x", _interrupted),
)
