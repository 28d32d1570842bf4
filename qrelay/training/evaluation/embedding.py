"""A corpus's vectors: computed in batches of equal cost, kept from one evaluation to the next.

Kept vectors belong to the model's bytes, the corpus's texts and everything else that makes them (longest text,
prompt, arithmetic). The key of all that is in the file: vectors of another model or corpus are never taken, they are
computed anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from qrelay.errors import ConfigError, ModelError
from qrelay.files import write_atomic
from qrelay.formats.beir import Collection
from qrelay.models.home import hash_file
from qrelay.progress import step

Vectors = npt.NDArray[np.float32]
Arithmetic = Literal["float32", "bfloat16"]
"""(what, done, in all)."""
_FORMAT: Final = 1
_CPU_TOKENS: Final = 2048
"""Of a batch, padding included."""
_GPU_TOKENS: Final = 65_536
_TEXTS_AT_ONCE: Final = 2048
_FILES: Final = (".npz", ".npy")


@dataclass(frozen=True, slots=True)
class Prompts:
    """Texts put before what is encoded. None: what the model itself prescribes for queries and for documents."""

    query: str | None = None
    document: str | None = None


@dataclass(frozen=True, slots=True)
class VectorCache:
    """place: a file (.npz, .npy) for the vectors of one model and corpus, or a folder for many. model_hash: see
    `model_hash`."""

    place: Path
    model_hash: str

    def load(self, facts: dict[str, Any]) -> Vectors | None:
        """The vectors of this model under these facts, or None.

        Raises:
            ConfigError: the file is there and holds something else than vectors.
        """
        path, key = self._file(facts), self._key(facts)
        if not path.exists():
            return None
        try:
            with np.load(path) as kept:
                same = "key" in kept and str(kept["key"]) == key
                return kept["vectors"] if same else None
        except (TypeError, AttributeError):  # a plain array: it does not say whose vectors it holds
            return None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(f"{path} holds no vectors ({error}): remove it, or name another place") from error

    def save(self, facts: dict[str, Any], vectors: Vectors) -> None:
        """Puts them in place, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, vectors=vectors, key=np.array(self._key(facts)))
        write_atomic(self._file(facts), buffer.getvalue())

    def _key(self, facts: dict[str, Any]) -> str:
        told = json.dumps({**facts, "model": self.model_hash, "format": _FORMAT}, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _file(self, facts: dict[str, Any]) -> Path:
        return self.place if self.place.suffix in _FILES else self.place / f"{self._key(facts)[:32]}.npz"


def model_hash(folder: Path) -> str:
    """sha256 over the names and bytes of the folder's files, hidden ones left out. Raises ModelError: it has none."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    if not files:
        raise ModelError(f"{folder} is not the folder of a model: it holds no file")
    lines = "".join(f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def corpus_vectors(
    collection: Collection,
    model: Any,
    *,
    prompt: str | None = None,
    arithmetic: Arithmetic = "float32",
    cache: VectorCache | None = None,
) -> Vectors:
    """Of unit length, [documents, dim], in the collection's order; from the cache where it holds these. `model`: a
    SentenceTransformer."""
    facts = {
        "corpus": collection.corpus_hash,
        "max_length": model.max_seq_length,
        "prompt": prompt,
        "arithmetic": arithmetic,
    }
    kept = cache.load(facts) if cache else None
    if kept is not None:
        return kept
    vectors = encode_documents(model, collection.texts, prompt=prompt, arithmetic=arithmetic)
    if cache:
        cache.save(facts, vectors)
    return vectors


def encode_queries(model: Any, texts: Sequence[str], *, prompt: str | None = None) -> Vectors:
    """Of unit length, [texts, dim], with the model's own prompt for queries unless `prompt` is given."""
    found: Vectors = model.encode_query(
        list(texts), prompt=prompt, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
    )
    return found


def encode_documents(
    model: Any,
    texts: Sequence[str],
    *,
    prompt: str | None = None,
    arithmetic: Arithmetic = "float32",
) -> Vectors:
    """Of unit length, [texts, dim], as the model's `encode_document` has them, in batches of equal cost: sorted by
    length, longest first, as many texts at once as make about the same number of tokens."""
    vectors: Vectors | None = None
    parts = _batches(_lengths(model, texts), _CPU_TOKENS if model.device.type == "cpu" else _GPU_TOKENS)
    with step("embedding documents", total=len(texts), unit="documents") as embedding:
        for part in parts:
            with computing(model, arithmetic):
                found: Vectors = model.encode_document(
                    [texts[i] for i in part],
                    prompt=prompt,
                    batch_size=len(part),
                    normalize_embeddings=True,
                    show_progress_bar=False,
                    convert_to_numpy=True,
                )
            if vectors is None:
                vectors = np.empty((len(texts), found.shape[1]), np.float32)
            vectors[part] = found
            embedding.advance(len(part))
    return vectors if vectors is not None else np.empty((0, model.get_embedding_dimension()), np.float32)


def _lengths(model: Any, texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Tokens of each text, cut at the model's longest."""
    longest = model.max_seq_length or 512
    found: list[int] = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = list(texts[start : start + _TEXTS_AT_ONCE])
        ids = model.tokenizer(part, truncation=True, max_length=longest, padding=False)["input_ids"]
        found += [len(each) for each in ids]
    return np.array(found, np.int64)


def _batches(lengths: npt.NDArray[np.int64], tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Places of texts, longest first; a batch's texts times its longest are at most `tokens`, or it is one text."""
    order = np.argsort(-lengths, kind="stable")
    at = 0
    while at < len(order):
        many = max(1, tokens // max(1, int(lengths[order[at]])))
        yield order[at : at + many]
        at += many


def computing(model: Any, arithmetic: Arithmetic) -> Any:
    """The context in which the model computes so; a no-op for float32."""
    import torch

    if arithmetic == "float32":
        return nullcontext()
    return torch.autocast(model.device.type, dtype=torch.bfloat16)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
