"""Adapters with the real libraries, which `make test-adapters` installs beside the project's own; where they are
absent, as in the suite, the files that need them are not collected."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from qrelay import Client
from tests.conftest import LONG_S

os.environ |= {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "WANDB_ERROR_REPORTING": "false",
}
"""Before a tool is imported: none tells its makers of our tests."""
collect_ignore_glob = [] if find_spec("langchain_core") else ["test_with_*.py"]
DOCUMENTS = {
    "moon": "The tides of the sea are caused by the gravity of the moon.",
    "bread": "Bread is made of flour, water, salt and yeast.",
    "train": "The night train from Vienna to Rome leaves at seven in the evening.",
    "tea": "Green tea is steeped in water of eighty degrees for two minutes.",
}


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of services of its own: a real index, embedder and reranker (all-MiniLM-L6-v2 for both); the judge is
    the shipped fake, which nobody asks here."""
    folder = tmp_path_factory.mktemp("integrations")
    rows = (
        {"_id": name, "title": name.title(), "text": text, "metadata": {"source": f"{name}.txt"}}
        for name, text in DOCUMENTS.items()
    )
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"judge": {"backend": "fake"}, "console": {"enabled": False}}
    corpus, data = folder / "corpus.jsonl", folder / "data"
    with Client.local(corpus, collection="facts", settings=settings, data_dir=data, timeout_s=10 * LONG_S) as own:
        yield own
