"""Any model by its name: what kind it is, and the run with which it answers a collection.

answer(collection, "bm25")
answer(collection, "all-MiniLM-L6-v2", Options(vectors=Path("vectors")))
answer(collection, Path("out/model"), kind="cross_encoder")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from qrelay.errors import ConfigError
from qrelay.formats.beir import Collection, Run
from qrelay.training.evaluation import systems
from qrelay.training.evaluation.embedding import Arithmetic, Prompts, VectorCache, model_hash

BM25: Final = "bm25"
Kind = Literal["bm25", "bi_encoder", "cross_encoder"]


@dataclass(frozen=True, slots=True)
class Options:
    """depth: documents a query. first: the run that a cross-encoder orders anew; None: BM25's. max_length: tokens of
    a text; 0: 256, a cross-encoder's pair 384. vectors: file or folder that keeps a corpus's vectors. device: as
    torch names it; "": a GPU where there is one."""

    depth: int = systems.DEPTH
    first: Run | None = None
    max_length: int = 0
    prompts: Prompts = field(default_factory=Prompts)
    arithmetic: Arithmetic = "float32"
    vectors: Path | None = None
    device: str = ""


def kind_of(model: str | Path) -> Kind:
    """What the model is. Raises ModelError: it is not there."""
    if str(model) == BM25:
        return "bm25"
    return "cross_encoder" if systems.is_cross_encoder(folder_of(model)) else "bi_encoder"


def folder_of(model: str | Path) -> Path:
    """A folder as it is, else where the catalogue's model lies. Raises ModelError: it is not there."""
    from qrelay.models.catalogue import resolve

    return Path(model) if Path(model).is_dir() else resolve(str(model)).path


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
    if found == "cross_encoder":
        return _reranked(collection, folder_of(model), options)
    return _searched(collection, folder_of(model), options)


def _reranked(collection: Collection, folder: Path, options: Options) -> Run:
    first = options.first if options.first is not None else systems.bm25_run(collection, options.depth)
    encoder = systems.load_cross_encoder(folder, max_length=options.max_length or 384, device=options.device)
    return systems.cross_encoder_run(collection, encoder, first, depth=options.depth, arithmetic=options.arithmetic)


def _searched(collection: Collection, folder: Path, options: Options) -> Run:
    encoder = systems.load_bi_encoder(folder, max_length=options.max_length or 256, device=options.device)
    return systems.bi_encoder_run(
        collection,
        encoder,
        depth=options.depth,
        prompts=options.prompts,
        arithmetic=options.arithmetic,
        cache=VectorCache(options.vectors, model_hash(folder)) if options.vectors else None,
    )
