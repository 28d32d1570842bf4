"""How a version lies in Milvus: names, fields, indexes.

    qrelay_<collection>                        alias: the version that is served
    qrelay_<collection>_v<version>_<layout>    collection of one version; layout: a hash of how Milvus holds it

`_` in a collection's name is written `__` and `-` is `_d`, so that the names of two collections never meet and `_v`
ends them. A version's manifest is a property of its collection: a retriever needs no folder.

BM25 is Milvus's own function over `terms`: the passage's terms as qrelay makes them (`qrelay.terms`), separated by
blanks, at which Milvus's `whitespace` tokenizer splits them. So both engines count the same terms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from qrelay.errors import CorpusIndexError
from qrelay.identity import digest
from qrelay.index.manifest import FORMAT, Manifest
from qrelay.index.milvus.client import Milvus
from qrelay.index.milvus.settings import IndexKind, MilvusSettings
from qrelay.parsing import json_document
from qrelay.terms import K1, B

ROW: Final = "row"
DOC_ID: Final = "doc_id"
NUMBER: Final = "number"
TITLE: Final = "title"
TEXT: Final = "text"
TERMS: Final = "terms"
METADATA: Final = "metadata"
SPARSE: Final = "bm25"
VECTOR: Final = "dense"
VARCHAR_BYTES: Final = 65_535
"""Most of a text in Milvus."""
_PREFIX: Final = "qrelay_"
MANIFEST: Final = "qrelay.manifest"
_PASSAGES: Final = "qrelay.passages"
_LAYOUT_CHARS: Final = 8
_ALIAS: Final = re.compile(rf"{_PREFIX}((?:[a-z0-9]|__|_d)+)", re.ASCII)
_BYTES: Final = {DOC_ID: 2048, TITLE: 4096, TEXT: VARCHAR_BYTES, TERMS: VARCHAR_BYTES, METADATA: VARCHAR_BYTES}
_INDEX: Final[dict[IndexKind, dict[str, int | float | str]]] = {
    "HNSW": {"M": 32, "efConstruction": 256},
    "HNSW_SQ": {"M": 32, "efConstruction": 256, "sq_type": "SQ8"},
    "IVF_FLAT": {"nlist": 4096},
    "IVF_SQ8": {"nlist": 4096},
}
_SEARCH: Final[dict[IndexKind, dict[str, int | float | str]]] = {
    "HNSW": {"ef": 512},
    "HNSW_SQ": {"ef": 512},
    "IVF_FLAT": {"nprobe": 256},
    "IVF_SQ8": {"nprobe": 256},
    "DISKANN": {"search_list": 300},
}


@dataclass(frozen=True, slots=True)
class Kept:
    """A version as Milvus has it. passages: a hash of what it holds beside vectors."""

    name: str
    manifest: Manifest
    passages: str


def alias_of(collection: str) -> str:
    return _PREFIX + collection.replace("_", "__").replace("-", "_d")


def collection_of(alias: str) -> str | None:
    """The collection whose alias this is; None: it is not one of ours."""
    found = _ALIAS.fullmatch(alias)
    if not found:
        return None
    return re.sub("__|_d", lambda pair: "_" if pair[0] == "__" else "-", found[1])


def name_of(manifest: Manifest, settings: MilvusSettings) -> str:
    """The name of a version's collection."""
    parts = (settings.index, json.dumps(index_params(settings), sort_keys=True), str(settings.shards))
    return f"{versions_of(manifest.collection)}{manifest.version}_{digest(*parts)[:_LAYOUT_CHARS]}"


def versions_of(collection: str) -> str:
    """How the names of all its versions begin."""
    return f"{alias_of(collection)}_v"


def index_params(settings: MilvusSettings) -> dict[str, int | float | str]:
    return _INDEX.get(settings.index, {}) | settings.index_params


def search_params(settings: MilvusSettings) -> dict[str, int | float | str]:
    return _SEARCH.get(settings.index, {}) | settings.search_params


def create(milvus: Milvus, manifest: Manifest, passages: str) -> str:
    """An empty collection for a version, with its indexes, unless it is there. Answers its name."""
    own, name = milvus.settings, name_of(manifest, milvus.settings)
    if not milvus.ask("has_collection", name):
        schema = _schema(manifest.dim, milvus.lite, bool(manifest.with_metadata))
        kept = {MANIFEST: manifest.model_dump_json(exclude={"files"}), _PASSAGES: passages}
        milvus.ask(
            "create_collection", name, schema=schema, num_shards=own.shards, consistency_level=own.consistency,
            properties=kept,
        )  # fmt: skip
    there = set(milvus.ask("list_indexes", name))
    for field, params in _indexes(manifest, own).items():
        if field not in there:
            _add_index(milvus, name, field, params)
    return name


def _indexes(manifest: Manifest, settings: MilvusSettings) -> dict[str, dict[str, Any]]:
    k1, b = constants(manifest)
    return {
        VECTOR: {"index_type": settings.index, "metric_type": "IP", "params": index_params(settings)},
        SPARSE: {
            "index_type": "SPARSE_INVERTED_INDEX",
            "metric_type": "BM25",
            "params": {"bm25_k1": k1, "bm25_b": b},
        },
    }


def _add_index(milvus: Milvus, name: str, field: str, params: dict[str, Any]) -> None:
    from pymilvus import MilvusClient

    given = params["params"]  # pymilvus lays them flat, and Milvus Lite reads them as they were
    wanted = MilvusClient.prepare_index_params()
    wanted.add_index(
        field, params["index_type"], field, metric_type=params["metric_type"],
        params={"params": given} if milvus.lite else given,
    )  # fmt: skip
    milvus.ask("create_index", name, wanted, sync=False)


def _schema(dim: int, lite: bool, metadata: bool) -> Any:
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW, DataType.INT64, is_primary=True)
    schema.add_field(NUMBER, DataType.INT32)
    for name in (DOC_ID, TITLE, TEXT, *([METADATA] if metadata else [])):
        schema.add_field(name, DataType.VARCHAR, max_length=_BYTES[name])
    analyzer = {"tokenizer": "standard" if lite else "whitespace"}  # Milvus Lite has no other
    schema.add_field(
        TERMS, DataType.VARCHAR, max_length=_BYTES[TERMS], enable_analyzer=True, analyzer_params=analyzer
    )
    schema.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
    schema.add_function(Function("bm25_of_terms", FunctionType.BM25, [TERMS], [SPARSE]))
    return schema


def kept(milvus: Milvus, name: str) -> Kept:
    """What the collection or alias `name` holds.

    Raises:
        Absent: there is none.
        CorpusIndexError: it is none of qrelay's, or of another format.
    """
    facts = milvus.ask("describe_collection", name)
    return read_kept(str(facts["collection_name"]), {str(key): value for key, value in facts["properties"].items()})


def read_kept(name: str, properties: Mapping[str, str]) -> Kept:
    """What the properties of the collection `name` say. Raises CorpusIndexError as `kept`."""
    try:
        document = json_document(properties[MANIFEST])
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise CorpusIndexError(
                f"{name} in Milvus has index format {found}, this qrelay reads {FORMAT}; load the index again"
            )
        manifest = Manifest.model_validate({**document, "files": ()})
        constants(manifest)
    except (KeyError, ValueError, ValidationError) as error:
        raise CorpusIndexError(
            f"{name} in Milvus holds no index of qrelay ({type(error).__name__}); load it again: `qrelay index load`"
        ) from error
    return Kept(name, manifest, properties.get(_PASSAGES, ""))


def constants(manifest: Manifest) -> tuple[float, float]:
    """BM25's k1 and b. Raises ValueError: they are no numbers."""
    given = manifest.parameters
    return float(given.get("bm25_k1", K1)), float(given.get("bm25_b", B))
