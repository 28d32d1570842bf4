"""Small collections in BEIR's layout, and models small enough to be made in a fixture."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

CORPUS = {
    "d1": ("Cats", "a cat sleeps on the mat"),
    "d2": ("", "dogs bark at night"),
    "d3": ("", "the cat chases a mouse"),
    "d4": ("Mice", "mice eat cheese"),
}
QUERIES = {"q1": "what do dogs do at night?", "q2": "which animal sleeps on a mat?", "q3": "what do mice eat?"}
QRELS = {"q1": {"d2": 1}, "q2": {"d1": 2, "d3": 1}, "q3": {"d4": 1, "d3": 0}}


def lines(path: Path, rows: Iterable[object], *, packed: bool = False) -> Path:
    """JSONL of objects, or lines of text as they are."""
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


def qrels_file(path: Path, qrels: dict[str, dict[str, int]]) -> Path:
    """BEIR's TSV."""
    rows = (
        f"{query_id}\t{doc_id}\t{grade}" for query_id, grades in qrels.items() for doc_id, grade in grades.items()
    )
    return lines(path, ["query-id\tcorpus-id\tscore", *rows])


def beir_folder(folder: Path) -> Path:
    """The collection of this module."""
    documents = [{"_id": doc_id, "title": title, "text": text} for doc_id, (title, text) in CORPUS.items()]
    lines(folder / "corpus.jsonl", documents)
    lines(folder / "queries.jsonl", [{"_id": query_id, "text": text} for query_id, text in QUERIES.items()])
    qrels_file(folder / "qrels" / "test.tsv", QRELS)
    return folder


def tiny_bert(folder: Path, *, pairs: bool, seed: int = 0) -> Path:
    """A random BERT of 32 dimensions in the library's layout: a bi-encoder, or with `pairs` a cross-encoder."""
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    words = {word for title, text in CORPUS.values() for word in f"{title} {text}".lower().split()}
    words |= {word.strip("?") for text in QUERIES.values() for word in text.lower().split()} | set("?.:abcdefgh")
    raw = folder.with_name(folder.name + "-raw")
    raw.mkdir(parents=True)
    (raw / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]) + "\n")
    tokenizer = BertTokenizerFast(str(raw / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(raw)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, num_labels=1,
    )  # fmt: skip
    model = BertForSequenceClassification(config) if pairs else BertModel(config)
    model.save_pretrained(raw)
    if pairs:
        CrossEncoder(str(raw), num_labels=1).save_pretrained(str(folder))
    else:
        body = Transformer(str(raw))
        pooling = Pooling(body.get_embedding_dimension())
        SentenceTransformer(modules=[body, pooling]).save(str(folder))
    return folder
