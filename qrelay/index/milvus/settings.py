"""The engine `milvus`'s settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from qrelay.config import NamesFile, Section

IndexKind = Literal["FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8", "DISKANN", "AUTOINDEX"]
Consistency = Literal["Strong", "Session", "Bounded", "Eventually"]


class MilvusSettings(Section):
    """The engine `milvus`."""

    uri: Annotated[str, NamesFile((".db",))] = Field(
        "",
        description="http://HOST:19530, or https://…, without credentials; a path that ends in .db is Milvus Lite, "
        "which one process at a time can open",
    )
    database: str = Field("", description="Database within Milvus; empty: its default one")
    token_env: str = Field(
        "", description="Name of the environment variable with `user:password` or an API key; empty: no credentials"
    )
    token_file: Path | None = Field(None, description="File with the same, read anew at each start; empty: none")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the server's certificate")
    timeout_s: float = Field(10.0, gt=0, description="Seconds for one request")
    wait_s: float = Field(
        600.0,
        gt=0,
        description="Seconds in which a flush, an index or a load must get further, while a version loads",
    )
    consistency: Consistency = Field(
        "Bounded", description="How fresh a search must be. Versions never change, so that the laxest one finds all"
    )
    shards: int = Field(1, ge=1, le=64, description="Shards of a new version: how many nodes take its writes")
    replicas: int = Field(1, ge=1, le=64, description="Copies in memory of a new version, each on nodes of its own")
    index: IndexKind = Field("HNSW", description="Kind of the vectors' index of a new version; FLAT is exact")
    index_params: dict[str, int | float | str] = Field(
        default_factory=dict, description="Its parameters over the default ones, such as M of HNSW"
    )
    search_params: dict[str, int | float | str] = Field(
        default_factory=dict, description="Parameters of a search over the default ones, such as ef of HNSW"
    )
    batch_rows: int = Field(1000, ge=1, le=10_000, description="Passages in one request of a bulk load")
    writers: int = Field(2, ge=1, le=64, description="Requests of a bulk load under way at once")

    @field_validator("uri")
    @classmethod
    def _is_an_address(cls, uri: str) -> str:
        if "@" in uri:
            raise ValueError(
                "it holds credentials: name a variable in milvus.token_env, or a file in milvus.token_file"
            )
        if uri and not uri.startswith(("http://", "https://")) and not uri.endswith(".db"):
            raise ValueError("it is neither http://HOST:PORT, https://HOST:PORT, nor a path that ends in .db")
        return uri

    @property
    def lite(self) -> bool:
        """Whether this is Milvus Lite, in this process."""
        return self.uri.endswith(".db") and "://" not in self.uri
