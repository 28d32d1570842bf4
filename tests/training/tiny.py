"""A tiny model and toy data: what training does, without weights that matter.

The bi-encoder is a BERT of 2 layers and 32 dimensions with random weights over the words below. In the toy set the
right answer names a city by number, and the wrong ones repeat the question's words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COUNT = 16
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = ("capital", "of", "country", "the", "seat", "is", "city", "has", "a", "letters", "in")


def tiny_model(folder: Path) -> Path:
    """A sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = [*_SPECIAL, *_WORDS, *(f"{kind}{n}" for kind in ("c", "t") for n in range(COUNT))]
    body = folder / "body"
    body.mkdir(parents=True)
    (body / "vocab.txt").write_text("\n".join(words) + "\n")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(str(body))
    BertTokenizerFast(str(body / "vocab.txt"), model_max_length=64).save_pretrained(str(body))
    transformer = Transformer(str(body), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


def passage(text: str, p: float, **fields: Any) -> dict[str, Any]:
    """A passage of an export of either format."""
    values = {
        "passage_id": text, "doc_id": text, "title": "", "text": text, "grade": round(3 * p), "p_relevant": p,
        "expected_relevance": p, "answer_nll": -p, "human": False, "reason": "", "scores": {},
    }  # fmt: skip
    return values | fields


def query(n: int) -> str:
    return f"capital of country c{n}"


def answers(n: int, **fields: Any) -> list[dict[str, Any]]:
    """The right answer, and three wrong ones."""
    return [
        passage(f"the seat is city t{n}", 0.9, role="positive", hard=False, **fields),
        passage(f"country c{n} has a capital", 0.2, role="negative", hard=True, **fields),
        passage(f"capital letters in country c{n}", 0.1, role="negative", hard=False, **fields),
        passage(f"the capital of country c{n} is in country c{n}", 0.4, role="", hard=False, **fields),
    ]


def triples(path: Path, count: int = COUNT, **fields: Any) -> Path:
    """An export of format `triples`."""
    rows = []
    for n in range(count):
        held = answers(n, **fields)
        rows.append({"query_id": f"q{n}", "query": query(n), "positives": held[:1], "negatives": held[1:3]})
    return _written(path, rows)


def labels(path: Path, count: int = COUNT, **fields: Any) -> Path:
    """An export of format `labels`."""
    rows = [{"query_id": f"q{n}", "query": query(n), "passages": answers(n, **fields)} for n in range(count)]
    return _written(path, rows)


def _written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
