"""The retriever's settings, each with its unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from qrelay.config import Section, ServiceSettings
from qrelay.http.settings import HttpSettings
from qrelay.index.http.settings import SearchSettings
from qrelay.index.kinds import AnyKind, Form
from qrelay.index.milvus.settings import MilvusSettings
from qrelay.models.engines import ENDPOINT_NAME, Api, EncoderEngine

DEFAULT_EMBEDDER: Final = "all-MiniLM-L6-v2"


class SyntheticSettings(Section):
    """The engine `synthetic`: the fake for tests and benchmarks."""

    service_time_s: float = Field(
        0.0, ge=0, description="Seconds that each query takes, one after another, whatever the batch"
    )


class EmbedderEndpointSettings(HttpSettings):
    """The embedder `endpoint`: a model behind HTTP."""

    url: str = Field("", description="Base URL without credentials; with `api: openai` it ends in /v1")
    api: Api = Field(
        "openai",
        description="openai: POST /embeddings, as OpenAI, vLLM, Ollama and many others have it; tei: POST /embed of "
        "text-embeddings-inference",
    )
    model: str = Field("", description="The endpoint's own name for the model")
    revision: str = Field("", description="The model's revision, part of its vectors' identity; empty: the URL")
    dimensions: int = Field(0, ge=0, description="Size of its vectors, which every answer is checked for")
    query_prompt: str = Field("", description="Text before each query, part of its vectors' identity")
    document_prompt: str = Field("", description="Text before each passage, part of its vectors' identity")
    normalise: bool = Field(True, description="Give vectors unit length; false: compare by the dot product")
    texts: int = Field(32, ge=1, le=2048, description="Maximum texts in one request; fewer where it refuses so many")

    def lacking(self, section: str) -> list[str]:
        """What keeps it from being asked. section: what errors call it."""
        found = list(self.problems(section, "embedder endpoint", "/v1" if self.api == "openai" else ""))
        if not self.model:
            found.append(f"{section}.model is empty: give the endpoint's name of the model")
        if not self.dimensions:
            found.append(f"{section}.dimensions is 0: give the size of the model's vectors")
        return found


class RetrieverSettings(ServiceSettings):
    """Section `retriever`: QRELAY_RETRIEVER__… in the environment."""

    engine: Literal["embedded", "milvus", "http", "synthetic"] = Field(
        "embedded",
        description="embedded: indexes on this machine; milvus: in a Milvus cluster; http: a search engine of your "
        "own; synthetic: made-up candidates, no model",
    )
    index_dir: Path | None = Field(
        None, description="Folder that `qrelay index build --out` wrote to; empty: <data_dir>/index"
    )
    collections: tuple[str, ...] = Field(
        (), description="Collections to serve; empty: all in index_dir. The engine http needs them named"
    )
    embedder: str = Field(
        DEFAULT_EMBEDDER,
        description="Embedding model's name, path:FOLDER, or endpoint (section embedder_endpoint); the index must be "
        "built by it",
    )
    embedder_engine: EncoderEngine = Field(
        "torch",
        description="What computes the vectors of indexes that are built or re-embedded: torch, or openvino (8-bit "
        "integers, on the CPU). Each index is served with the engine that it names; promoted versions run in torch",
    )
    embedder_dim: int = Field(
        0,
        ge=0,
        description="Numbers kept of each vector of indexes that are built or re-embedded, for models that were "
        "trained for it (Matryoshka); 0: all. Each index is served with what it names",
    )
    vectors: Form = Field(
        "float32",
        description="How a build stores vectors: float32, float16 (half the bytes) or int8 (a quarter); "
        "docs/retrieval.md has what each costs",
    )
    ann: AnyKind = Field(
        "auto",
        description="How a build makes dense search: exact, or approximate by FAISS; auto: exact for few passages, "
        "else the first of hnsw, ivf-sq and ivf-pq that fits ann_memory_gb",
    )
    ann_recall: float = Field(
        0.98,
        gt=0,
        le=1,
        description="Least recall of the 100 nearest, at its build, of an approximate index",
    )
    ann_links: int = Field(32, ge=4, le=256, description="Links of a passage in an hnsw index")
    ann_memory_gb: float = Field(
        0, ge=0, description="GB that an approximate index may take while it serves; 0: half of the memory there is"
    )
    language: str = Field(
        "auto",
        description="Language of BM25's terms at a build, as ISO 639-1 (de, fr, zh, …): its stemmer and stop words; "
        "auto: as detected; any: neither",
        pattern=r"[a-z]{2,4}",
    )
    bm25_top_k: int = Field(200, ge=1, le=10_000, description="Passages that BM25 proposes for a query")
    dense_top_k: int = Field(100, ge=1, le=10_000, description="Passages that the vectors propose for a query")
    max_candidates: int = Field(
        100, ge=1, le=10_000, description="Candidates kept for a query, after fusing both lists"
    )
    rrf_k: int = Field(60, ge=1, description="Constant of reciprocal rank fusion, in ranks")
    max_query_chars: int = Field(8192, ge=1, description="Characters of a query; longer ones are refused")
    verify: Literal["full", "size"] = Field(
        "size", description="Check of an index when it is loaded: every file's sha256, or only its size"
    )
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads for embedding; 0: all cores. Search uses one thread a batch"
    )
    reload_every_s: float = Field(
        1.0, ge=0, description="Seconds between checks for a new index version; a check costs microseconds"
    )
    registry_poll_s: float = Field(
        5.0,
        ge=0,
        description="Seconds between checks for a promoted bi-encoder in the registry; 0: the registry is never "
        "looked at, and each index is served with the model that built it",
    )
    reembed: bool = Field(
        True,
        description="Whether this service re-embeds its collections for a promoted bi-encoder, in a process beside "
        "it; false: it waits until `qrelay index reembed` was run elsewhere on the same folder",
    )
    reembed_threads: int = Field(
        1, ge=1, le=1024, description="CPU threads of the process that re-embeds, which runs at low priority"
    )

    milvus: MilvusSettings = MilvusSettings()
    embedder_endpoint: EmbedderEndpointSettings = EmbedderEndpointSettings()
    synthetic: SyntheticSettings = SyntheticSettings()
    http: SearchSettings = SearchSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.engine == "http" and (problems := [*self.http.own_problems(self.collections)]):
            raise ValueError("; ".join(problems))
        if self.engine == "milvus" and not self.milvus.uri:
            raise ValueError("engine milvus needs milvus.uri: http://HOST:19530, say")
        return self

    def _endpoints(self) -> Sequence[tuple[str, str]]:
        return (
            *super()._endpoints(),
            ("retriever.http.url", self.http.url),
            ("retriever.embedder_endpoint.url", self.embedder_endpoint.url),
            ("retriever.milvus.uri", "" if self.milvus.lite else self.milvus.uri),
        )

    @property
    def embeds(self) -> bool:
        """Whether queries are embedded here."""
        return self.engine in ("embedded", "milvus") or (self.engine == "http" and self.http.wants_vectors)

    @property
    def index_folder(self) -> Path:
        """`index_dir`, or its default."""
        return self.index_dir or self.data_dir / "index"

    @model_validator(mode="after")
    def _endpoint_is_whole(self) -> Self:
        if self.embedder != ENDPOINT_NAME or not self.embeds:
            return self
        own = self.embedder_endpoint
        problems = own.lacking("embedder_endpoint")
        if self.embedder_dim > own.dimensions:
            problems.append(f"embedder_dim ({self.embedder_dim}) exceeds embedder_endpoint.dimensions")
        if problems:
            raise ValueError("; ".join(problems))
        return self
