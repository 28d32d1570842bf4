"""Tiny real models with random weights, for tests of mechanics: a second to make, and no weights from anywhere.

A bi-encoder and a cross-encoder are two-layer BERTs of 32 dimensions over a vocabulary of the given words. Models of
different seeds give the same texts clearly different scores, so that a score says which model computed it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

DIM = 32
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def bi_encoder(
    folder: Path,
    words: Iterable[str],
    seed: int,
    max_tokens: int = 64,
    prompts: dict[str, str] | None = None,
    *,
    pooling: str = "mean",
    dense: int = 0,
    normalise: bool = False,
    similarity: str | None = None,
    **more: Any,
) -> Path:
    """A sentence-transformers folder. dense: size of a layer after pooling; more: what the library's class takes."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
    from transformers import BertModel

    body = folder.with_name(f"{folder.name}-body")
    _save(BertModel, body, words, seed, max_tokens)
    parts: list[Any] = [Transformer(str(body)), Pooling(DIM, pooling)]
    parts += [Dense(DIM, dense)] if dense else []
    parts += [Normalize()] if normalise else []
    SentenceTransformer(
        modules=parts, device="cpu", prompts=prompts, similarity_fn_name=similarity, **more
    ).save(str(folder))  # fmt: skip
    return folder


def cross_encoder(folder: Path, words: Iterable[str], seed: int, max_tokens: int = 64) -> Path:
    """A sequence classifier with one label, whose scores spread over (0, 1)."""
    from sentence_transformers import CrossEncoder
    from transformers import BertForSequenceClassification

    body = folder.with_name(f"{folder.name}-body")
    _save(BertForSequenceClassification, body, words, seed, max_tokens)
    CrossEncoder(str(body), device="cpu").save_pretrained(str(folder))
    return folder


def _save(kind: Any, folder: Path, words: Iterable[str], seed: int, max_tokens: int) -> None:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=DIM, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=max_tokens, num_labels=1, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(seed)
    kind(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_tokens, pad_token="[PAD]", unk_token="[UNK]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip
