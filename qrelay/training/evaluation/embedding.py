"""A corpus's vectors, kept from one evaluation to the next.

Kept vectors belong to the model's bytes, the corpus's texts and everything else that makes them (longest text,
prompt, arithmetic). The key of all that is in the file: vectors of another model or corpus are never taken, they are
computed anew.
"""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from qrelay.errors import ConfigError
from qrelay.files import write_atomic
from qrelay.formats.beir import Collection
from qrelay.identity import digest
from qrelay.models.embedder import SentenceTransformerEmbedder, Vectors
from qrelay.progress import step

Arithmetic = Literal["float32", "bfloat16"]
_FORMAT: Final = "2"
_AT_ONCE: Final = 2048
_FILES: Final = (".npz", ".npy")


def corpus_vectors(
    collection: Collection,
    embedder: SentenceTransformerEmbedder,
    *,
    arithmetic: Arithmetic = "float32",
    keep: Path | None = None,
) -> Vectors:
    """[documents, dim], in the collection's order. keep: a file (.npz, .npy) for the vectors of one model and corpus,
    or a folder for many, from which they are taken where it holds these.

    Raises:
        ConfigError: the file is there and holds something else than vectors.
    """
    model = embedder.model
    made_by = embedder.fingerprint, str(model.max_seq_length), model.prompts.get("document", ""), arithmetic
    key = digest(_FORMAT, collection.corpus_hash, *made_by)
    path = keep if keep is None or keep.suffix in _FILES else keep / f"{key[:32]}.npz"
    kept = _load(path, key) if path else None
    if kept is not None:
        return kept
    vectors = np.empty((len(collection.texts), embedder.dim), np.float32)
    with step("embedding documents", total=len(vectors), unit="documents") as embedding:
        for start in range(0, len(vectors), _AT_ONCE):
            part = collection.texts[start : start + _AT_ONCE]
            with computing(model, arithmetic):
                vectors[start : start + _AT_ONCE] = embedder.encode(part, "document")
            embedding.advance(len(part))
    if path:
        buffer = io.BytesIO()
        np.savez(buffer, vectors=vectors, key=np.array(key))
        write_atomic(path, buffer.getvalue())
    return vectors


def _load(path: Path, key: str) -> Vectors | None:
    """The file's vectors; None where it is absent or they are not of this key."""
    try:
        with np.load(path) as kept:
            found: Vectors | None = kept["vectors"] if "key" in kept and str(kept["key"]) == key else None
            return found
    except (FileNotFoundError, TypeError, AttributeError):  # a plain array does not say whose vectors it holds
        return None
    except Exception as error:  # what zipfile and numpy raise at bytes that are not theirs
        raise ConfigError(f"{path} holds no vectors ({error}): remove it, or name another place") from error


def computing(model: Any, arithmetic: Arithmetic) -> Any:
    """The context in which the model computes so; a no-op for float32."""
    import torch

    if arithmetic == "float32":
        return nullcontext()
    return torch.autocast(model.device.type, dtype=torch.bfloat16)
