"""Embedders: texts to vectors, and texts to token windows. One protocol, two implementations.

- `SentenceTransformerEmbedder`: a folder that sentence-transformers can load; CPU or GPU; never a hub. Its engine is
  torch, or openvino: 8-bit integers, on the CPU (`openvino_encoders`).
- `HashEmbedder`: the shipped double. Its vectors hold small integers, so that every dot product is exact in
  float32 whatever the batch, the order of summation or the BLAS: runs with it can be compared byte by byte.

torch is imported when a model is loaded, not with this module.
"""

from __future__ import annotations

import os
import re
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from qrelay.errors import ConfigError, ModelError
from qrelay.models.catalogue import resolve
from qrelay.models.engines import EncoderEngine, fingerprint
from qrelay.models.loading import ONE_AT_A_TIME

Vectors = npt.NDArray[np.float32]
HASH_NAME: Final = "hash"
_MAX_SEQ_TOKENS: Final = 256
_CPU_BATCH_TEXTS: Final = 16
"""Sorted by length, 16 pad less than 32: 5.3 against 6.6 CPU-ms a MedQuAD question (one thread)."""
_GPU_BATCH_TEXTS: Final = 128
_MAX_COUNT: Final = 8


class Embedder(Protocol):
    """A model of one vector space. A text's vector does not depend on what it is encoded with: in torch within 1e-5;
    in openvino within a cosine of 0.999, as a last digit may carry an activation over the edge of an integer."""

    name: str
    fingerprint: str
    """model@revision, and the engine where it is not torch: vectors of different fingerprints are never compared."""
    dim: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape [len(texts), dim], float32, of unit length (but for the double)."""

    def windows(self, text: str, size: int, stride: int) -> list[str]:
        """The text cut into windows of `size` tokens, one every `stride` tokens, until its end is covered;
        a text of at most `size` tokens stays whole."""


def load_embedder(name: str, *, engine: EncoderEngine = "torch", threads: int = 0, device: str = "") -> Embedder:
    """ "hash" for the double, else a catalogue name or `path:FOLDER`.

    engine: of whatever model; the double has none. threads: of torch, for the whole process, or of OpenVINO, for this
    model; 0: the library's choice. Several services on few cores do better
    with 1 each. device: as torch names it ("cpu", "cuda", "cuda:1"); "": a GPU where there is one;
    openvino runs on the CPU.

    Raises:
        ModelError: the model is absent (the text says how to pull it), its bytes are not the catalogue's, or
            sentence-transformers cannot load it, or OpenVINO cannot convert it.
    """
    if name == HASH_NAME:
        return HashEmbedder()
    return SentenceTransformerEmbedder(name, engine=engine, threads=threads, device=device)


def cut(text: str, offsets: Sequence[tuple[int, int]], size: int, stride: int) -> list[str]:
    """Windows of `size` tokens, one every `stride`, as slices of the text.

    offsets: (start, end) of each token in characters, ascending. A slice goes from its first token's start to
    the start of the token after its last one, less white space at its ends: characters that are in no token
    (accents that the tokenizer strips, say) stay, so that nothing but white space is lost.
    """
    if not 1 <= stride <= size:
        raise ConfigError(f"windows of {size} tokens every {stride}: give 1 <= stride <= window, or text is lost")
    if len(offsets) <= size:
        return [text]
    edges = [0, *(start for start, _ in offsets[1:]), len(text)]
    starts = range(0, len(offsets) - size + stride, stride)
    return [text[edges[start] : edges[min(start + size, len(offsets))]].strip() for start in starts]


class SentenceTransformerEmbedder:
    """A sentence-transformers model loaded from a folder. May be called from several threads."""

    def __init__(self, name: str, *, engine: EncoderEngine = "torch", threads: int = 0, device: str = "") -> None:
        resolved = resolve(name)
        self._model = _load(resolved.path, threads, "cpu" if engine == "openvino" else device)
        self._model.max_seq_length = min(_MAX_SEQ_TOKENS, self._model.max_seq_length or _MAX_SEQ_TOKENS)
        self._batch_texts = _CPU_BATCH_TEXTS if self._model.device.type == "cpu" else _GPU_BATCH_TEXTS
        self._tokenizer = _tokenizer(self._model)
        if engine == "openvino":
            from qrelay.models.openvino_encoders import use_openvino

            use_openvino(self._model, resolved, pairs=False, threads=threads)
        self._one_at_a_time = threading.Lock()  # the library sets padding on a tokenizer that it shares
        self.name = resolved.name
        self.fingerprint = fingerprint(f"{resolved.name}@{resolved.revision}", engine)
        self.dim = int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Texts above 256 tokens are cut there. The library sorts by length, so that a batch pads little."""
        if not texts:
            return np.empty((0, self.dim), np.float32)
        with self._one_at_a_time:
            vectors: Vectors = self._model.encode(
                list(texts), batch_size=self._batch_texts, normalize_embeddings=True, show_progress_bar=False
            )
        return vectors

    def windows(self, text: str, size: int, stride: int) -> list[str]:
        """By the model's own tokens, special tokens not counted."""
        return cut(text, self._tokenizer.encode(text, add_special_tokens=False).offsets, size, stride)


class HashEmbedder:
    """Counts of hashed words: no model, deterministic, exact. Not of unit length: `encode` returns integers from
    0 to 8 in float32, so that products of 64 of them stay far below 2**24, where float32 is exact."""

    name = HASH_NAME
    fingerprint = "hash@1"
    dim = 64
    _WORD = re.compile(r"\w+")

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Word counts modulo `dim`, each at most 8."""
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            buckets = [zlib.crc32(word.encode()) % self.dim for word in self._WORD.findall(text.lower())]
            if buckets:
                row[:] = np.bincount(buckets, minlength=self.dim)
        return np.minimum(vectors, _MAX_COUNT)

    def windows(self, text: str, size: int, stride: int) -> list[str]:
        """By words."""
        return cut(text, [match.span() for match in re.finditer(r"\S+", text)], size, stride)


def _load(path: Path, threads: int, device: str) -> Any:
    """The library's model. Raises ModelError where it cannot be had."""
    # Before torch loads OpenMP: its threads spin while they wait, which on a machine that others use too costs
    # five times the CPU (30 against 6.7 CPU-ms a query with two threads on two busy cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise ModelError(f"an embedding model needs {error.name}: run `pip install 'qrelay[embed]'`") from error
    transformers_logging.disable_progress_bar()  # qrelay shows its own
    if threads:
        torch.set_num_threads(threads)
    try:
        with ONE_AT_A_TIME:
            return SentenceTransformer(str(path), local_files_only=True, device=device or None)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"sentence-transformers cannot load {path} ({error}). Give a folder that holds an embedding model."
        ) from error


def _tokenizer(model: Any) -> Any:
    """A tokenizer of the model's own, without truncation and padding, that nobody else changes."""
    from tokenizers import Tokenizer

    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError("the embedding model has no tokenizer.json: save it with a fast tokenizer")
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
