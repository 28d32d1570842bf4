"""Embedders: texts to vectors, and texts to token windows. One protocol; a third implementation asks an HTTP endpoint
(`embedding_endpoint`).

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
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from qrelay.errors import ConfigError, ModelError
from qrelay.models.batches import batches, tokens_on
from qrelay.models.catalogue import resolve
from qrelay.models.encoding import own_length, space
from qrelay.models.engines import EncoderEngine, fingerprint, of_dim
from qrelay.models.loading import load_encoder
from qrelay.words import spaced_words

Vectors = npt.NDArray[np.float32]
TextKind = Literal["query", "document"]
"""What a text is: models have a prompt for each."""
HASH_NAME: Final = "hash"
_CPU_TEXTS: Final = 16
"""Sorted by length, 16 pad less than 32: 5.3 against 6.6 CPU-ms a MedQuAD question (one thread)."""
_CHARACTERS_A_TOKEN: Final = 4
_MOST_CHARACTERS_A_TOKEN: Final = 8
"""Of a text's beginning, in which its tokens are counted."""
_SPLINTERED: Final = 3
"""Letters of a word, at least, that came apart; shorter words do in every vocabulary."""
_MAX_COUNT: Final = 8


class Embedder(Protocol):
    """A model of one vector space. A text's vector does not depend on what it is encoded with: in torch within 1e-5;
    in openvino within a cosine of 0.999, as a last digit may carry an activation over the edge of an integer."""

    name: str
    fingerprint: str
    """model@revision, with its prompts, length and similarity (`encoding`), the dimensions that are kept where it is
    not all, and the engine where it is not torch: vectors of different fingerprints are never compared."""
    dim: int

    @property
    def notes(self) -> Mapping[str, str]:
        """What people should know of it now, such as a pause that an endpoint asks for."""

    def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        """Vectors of shape [len(texts), dim], float32, of unit length (but for the double, and models that are
        compared by the dot product)."""

    def windows(self, text: str, size: int, stride: int) -> list[str]:
        """The text cut into windows of `size` tokens, one every `stride` tokens, until its end is covered;
        a text of at most `size` tokens stays whole."""

    def unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """(tokens of the texts, how many of them stand for words that the model's vocabulary does not hold)."""


def load_embedder(
    name: str, *, engine: EncoderEngine = "torch", threads: int = 0, device: str = "", dim: int = 0
) -> Embedder:
    """ "hash" for the double, else a catalogue name or `path:FOLDER`.

    engine: of whatever model; the double has none. threads: of torch, for the whole process, or of OpenVINO, for this
    model; 0: the library's choice. Several services on few cores do better
    with 1 each. device: as torch names it ("cpu", "cuda", "cuda:1"); "": a GPU where there is one;
    openvino runs on the CPU. dim: the first so many numbers of each vector are kept (Kusupati et al., Matryoshka
    Representation Learning, NeurIPS 2022), at unit length again; 0: all, or as many as the model's own files say.

    Raises:
        ModelError: the model is absent (the text says how to pull it), its bytes are not the catalogue's, or
            sentence-transformers cannot load it, or OpenVINO cannot convert it, or its vectors are compared in a way
            that no index has.
        ConfigError: its vectors are shorter than `dim`.
    """
    if name == HASH_NAME:
        return HashEmbedder(dim)
    # Before torch loads OpenMP: its threads spin while they wait, which on a machine that others use too costs
    # five times the CPU (30 against 6.7 CPU-ms a query with two threads on two busy cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    resolved = resolve(name)
    length = own_length(resolved.path)
    model = load_encoder("SentenceTransformer", resolved, length, engine=engine, threads=threads, device=device)
    kept = _shortened(model, resolved.name, dim)
    return SentenceTransformerEmbedder(model, resolved.name, fingerprint(of_dim(space(resolved), kept), engine))


def _shortened(model: Any, name: str, dim: int) -> int:
    """Has the model keep `dim` numbers of its vectors; answers how many, 0 for all that it gives."""
    own = int(model.get_embedding_dimension())
    if dim > own:
        raise ConfigError(f"{name} gives vectors of {own} dimensions, {dim} are asked for: ask for at most {own}")
    if not dim or dim == own:
        return 0
    model.truncate_dim = dim
    return dim


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


def splinters(text: str, offsets: Sequence[tuple[int, int]]) -> int:
    """How many tokens say nothing though the vocabulary has them: parts of a letter, and the letters of a word that
    came apart into nothing else. A vocabulary of English has the alphabets of others, and not one of their words.

    offsets: (start, end) of each token in characters, ascending.
    """
    if text.isascii():
        return 0
    lone = [end - start == 1 and text[start] > "\x7f" for start, end in offsets]
    divided = {one[0] for one, other, mere in zip(offsets, offsets[1:], lone, strict=False) if mere and one == other}
    found = sum(mere and start in divided for (start, _), mere in zip(offsets, lone, strict=True))
    starts = [start for start, _ in offsets]
    for begin, end in spaced_words(text):
        first, last = bisect_left(starts, begin), bisect_left(starts, end)
        if last - first >= _SPLINTERED and all(lone[first:last]):
            found += sum(start not in divided for start in starts[first:last])
    return found


class SentenceTransformerEmbedder:
    """A SentenceTransformer as trainer, evaluation, gate and service call it. May be called from several threads."""

    notes: Mapping[str, str] = {}

    def __init__(self, model: Any, name: str = "", fingerprint: str = "") -> None:
        self.model, self.name, self.fingerprint = model, name, fingerprint
        self.dim = int(model.get_embedding_dimension())
        self._normalise = _compared(model, name) == "cosine"
        self._one_at_a_time = threading.Lock()  # the library sets padding on a tokenizer that it shares

    def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        """With the model's own prompt for queries or documents, cut at its own maximum length, at unit length unless
        the model is compared by the dot product; in batches of about equal cost, the longest texts first.

        Raises:
            ModelError: a vector is not finite.
        """
        encode = self.model.encode_query if kind == "query" else self.model.encode_document
        vectors = np.empty((len(texts), self.dim), np.float32)
        with self._one_at_a_time:
            for rows in self._batches(texts):
                part = [texts[row] for row in rows]
                vectors[rows] = encode(
                    part, batch_size=len(part), normalize_embeddings=self._normalise, show_progress_bar=False
                )
        if not np.isfinite(vectors).all():
            raise ModelError(f"{self.fingerprint} gives a text a vector that is no number: its weights are damaged")
        return vectors

    def _batches(self, texts: Sequence[str]) -> Iterator[list[int]]:
        device = self.model.device.type
        return batches(self._lengths(texts), tokens_on(device), _CPU_TEXTS if device == "cpu" else len(texts))

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Of each text about so many tokens, at most those that the model reads."""
        most = self.model.max_seq_length
        if getattr(self.model.tokenizer, "backend_tokenizer", None) is None:
            return [min(most, len(text) // _CHARACTERS_A_TOKEN + 1) for text in texts]
        counted = self._tokenizer.encode_batch([text[: _MOST_CHARACTERS_A_TOKEN * most] for text in texts])
        return [min(most, len(each.ids)) for each in counted]

    def windows(self, text: str, size: int, stride: int) -> list[str]:
        """By the model's own tokens, special tokens not counted."""
        return cut(text, self._tokenizer.encode(text, add_special_tokens=False).offsets, size, stride)

    def unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Also counted as unknown: `splinters`."""
        unknown = getattr(self.model.tokenizer, "unk_token_id", None)
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        tokens = lost = 0
        for text, each in zip(texts, found, strict=True):
            known = [place for place, token in zip(each.offsets, each.ids, strict=True) if token != unknown]
            tokens += len(each.ids)
            lost += len(each.ids) - len(known) + splinters(text, known)
        return tokens, lost

    @cached_property
    def _tokenizer(self) -> Any:
        """A tokenizer of the model's own, without truncation and padding, that nobody else changes."""
        from tokenizers import Tokenizer

        backend = getattr(self.model.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError("the embedding model has no tokenizer.json: save it with a fast tokenizer")
        tokenizer = Tokenizer.from_str(backend.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def _compared(model: Any, name: str) -> str:
    """ "cosine" or "dot", as the model's own files say."""
    found = str(model.similarity_fn_name)
    if found not in ("cosine", "dot"):
        raise ModelError(
            f"{name or 'the embedding model'} compares its vectors by {found} distance, and an index by cosine or "
            "dot product: choose another model"
        )
    return found


class HashEmbedder:
    """Counts of hashed words: no model, deterministic, exact. Not of unit length: `encode` returns integers from
    0 to 8 in float32, so that products of 64 of them stay far below 2**24, where float32 is exact."""

    name = HASH_NAME
    fingerprint = "hash@1"
    dim = 64
    notes: Mapping[str, str] = {}
    _WORD = re.compile(r"\w+")

    def __init__(self, dim: int = 0) -> None:
        """dim: words are counted in so many buckets; 0: in 64."""
        if dim and dim != self.dim:
            self.dim, self.fingerprint = dim, of_dim(self.fingerprint, dim)

    def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:  # noqa: ARG002 (it has no prompts)
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

    def unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """It knows every word."""
        return sum(len(text.split()) for text in texts), 0
