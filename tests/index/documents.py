"""A corpus of made-up documents, and indexes of it by the shipped hash embedder."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from qrelay.index.build import BuildRequest, BuildResult, build_index
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.services.retriever.retriever import Retriever, load_retriever

WORDS = [f"word{number}" for number in range(300)]
Rows = Sequence[Mapping[str, Any]]


def made_up(count: int, words: int = 60, seed: int = 0) -> list[dict[str, str]]:
    """Documents of about `words` words, the earlier words of the vocabulary more frequent."""
    source = random.Random(seed)
    return [
        {
            "_id": f"d{number}",
            "title": f"title{number % 7}",
            "text": " ".join(WORDS[int(300 * source.random() ** 2)] for _ in range(words)),
        }
        for number in range(count)
    ]


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf8")
    return path


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return load_embedder("hash")


@pytest.fixture
def build(tmp_path: Path, embedder: Embedder) -> Callable[..., BuildResult]:
    """Build an index of rows into tmp_path/index."""

    def run(rows: Rows, collection: str = "tiny", by: Embedder = embedder) -> BuildResult:
        source = write_jsonl(tmp_path / f"{collection}.jsonl", rows)
        request = BuildRequest(str(source), collection, tmp_path / "index", window=40, stride=20)
        return build_index(request, by, lambda line: None)

    return run


@pytest.fixture
def settings(tmp_path: Path) -> RetrieverSettings:
    return RetrieverSettings(index_dir=tmp_path / "index", embedder="hash", reload_every_s=0)


@pytest.fixture
def retriever(build: Callable[..., BuildResult], settings: RetrieverSettings) -> Retriever:
    """Over a collection `tiny` of 120 documents."""
    build(made_up(120))
    return load_retriever(settings)
