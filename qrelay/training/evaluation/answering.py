"""Any model by its name: what kind it is, and the run with which it answers a collection.

answer(collection, "bm25")
answer(collection, "all-MiniLM-L6-v2", Options(vectors=Path("vectors")))
answer(collection, Path("out/model"), kind="cross_encoder")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from qrelay.errors import ConfigError
from qrelay.formats.beir import Collection, Run
from qrelay.models.catalogue import resolve
from qrelay.models.embedder import SentenceTransformerEmbedder
from qrelay.models.encoding import own_length, pair_length, space
from qrelay.models.loading import load_encoder
from qrelay.models.records import ResolvedModel
from qrelay.training.evaluation import systems
from qrelay.training.evaluation.embedding import Arithmetic

BM25: Final = "bm25"
Kind = Literal["bm25", "bi_encoder", "cross_encoder"]


@dataclass(frozen=True, slots=True)
class Options:
    """depth: documents a query. first: the run that a cross-encoder orders anew; None: BM25's. max_length: tokens of
    a text, or of a cross-encoder's pair, at most; 0: the model's own. prompts: by kind of text ("query", "document"),
    in place of the model's own. vectors: file or folder that keeps a corpus's vectors. device: as torch names it; "":
    a GPU where there is one."""

    depth: int = systems.DEPTH
    first: Run | None = None
    max_length: int = 0
    prompts: Mapping[str, str] = field(default_factory=dict)
    arithmetic: Arithmetic = "float32"
    vectors: Path | None = None
    device: str = ""


def kind_of(model: str | Path) -> Kind:
    """What the model is. Raises ModelError: it is not there."""
    if str(model) == BM25:
        return "bm25"
    return "cross_encoder" if systems.is_cross_encoder(_resolved(model).path) else "bi_encoder"


def _resolved(model: str | Path) -> ResolvedModel:
    """A folder as it is, else the catalogue's model. Raises ModelError: it is not there."""
    return resolve(f"path:{model}" if Path(model).is_dir() else str(model))


def answer(
    collection: Collection,
    model: str | Path,
    options: Options = Options(),
    *,
    kind: Kind | None = None,
) -> Run:
    """The model's run: bm25, a bi-encoder's exact search of the corpus, a cross-encoder's order of a first run.

    Raises:
        ModelError: the model is absent or cannot be loaded.
        ConfigError: `kind` is not what the model is.
        InputError: the first run names documents that the corpus lacks.
    """
    found = kind_of(model)
    if kind and kind != found:
        raise ConfigError(f"{model} is a {found}, not a {kind}: name the right model or kind")
    if found == "bm25":
        return systems.bm25_run(collection, options.depth)
    resolved, device, arithmetic = _resolved(model), options.device, options.arithmetic
    if found == "cross_encoder":
        first = systems.bm25_run(collection, options.depth) if options.first is None else options.first
        length = pair_length(resolved.path, options.max_length)
        encoder = load_encoder("CrossEncoder", resolved, length, device=device)
        return systems.cross_encoder_run(collection, encoder, first, depth=options.depth, arithmetic=arithmetic)
    own = own_length(resolved.path)
    encoder = load_encoder("SentenceTransformer", resolved, min(options.max_length or own, own), device=device)
    encoder.prompts |= options.prompts
    embedder = SentenceTransformerEmbedder(encoder, fingerprint=space(resolved))
    return systems.bi_encoder_run(
        collection, embedder, depth=options.depth, arithmetic=arithmetic, keep=options.vectors
    )
