"""What is labelled: made documents under a real index (hash vectors), and questions that have positives and hard
negatives among them, so that every export has rows to compare."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tests.pipeline.harness import COLLECTION, DOUBLES, called

_DOCUMENTS = 600
_WORDS = 300


def prepare(folder: Path) -> dict[str, str]:
    """Builds the index; the environment of installations that serve it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = (
        {"_id": f"d{number}", "title": f"thing {number}", "text": " ".join(text)}
        for number, text in enumerate(_documents())
    )
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = folder / "index"
    built = called(
        "index", "build", str(corpus), "--collection", COLLECTION, "--out", str(index), "--embedder", "hash"
    )
    assert built.returncode == 0, built.stderr
    return {
        **DOUBLES,
        "QRELAY_RETRIEVER__ENGINE": "embedded",
        "QRELAY_RETRIEVER__INDEX_DIR": str(index),
        "QRELAY_RETRIEVER__EMBEDDER": "hash",
        "QRELAY_RERANKER__SCORER": "bi_encoder",
        "QRELAY_ALL__WORKER__MAX_ITEMS": "8",
        "QRELAY_ALL__WORKER__HEARTBEAT_S": "0.5",
        "QRELAY_ALL__WORKER__RETRY_DELAYS_S": "[0.2]",
        "QRELAY_ALL__WORKER__MAX_ATTEMPTS": "500",
        "QRELAY_ALL__NATS__ACK_WAIT_S": "2",
        "QRELAY_ALL__NATS__PUBLISH_TIMEOUT_S": "2",
    }


def queries(count: int) -> dict[str, str]:
    """query_id -> text."""
    texts = _documents()
    draw = random.Random(11)
    return {f"q{number:05d}": " ".join(draw.sample(texts[number % _DOCUMENTS], 6)) for number in range(count)}


def _documents() -> list[list[str]]:
    draw = random.Random(7)
    words = [f"word{number}" for number in range(_WORDS)]
    return [draw.choices(words, k=40) for _ in range(_DOCUMENTS)]
