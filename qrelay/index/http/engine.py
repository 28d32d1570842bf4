"""HttpEngine: candidates from a search engine of the user's own, page by page, under the pace that it bears.

    texts ─► requests by the template ─► Connection (pace, retries, limits) ─► hits ─► candidates

A candidate has one score and one rank, of the system that the settings name. A hit that comes again on a later page
counts once. Whatever fails concerns one query: an answer that cannot be read is its error for good, a refusal, a
pause or silence one that is tried again (see `qrelay/http`).
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import astuple
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qrelay.config import secret
from qrelay.errors import ConfigError, QrelayError
from qrelay.formats.records import metadata_remark
from qrelay.http.blocking import Blocking
from qrelay.http.connection import Connection
from qrelay.http.names import Names
from qrelay.identity import digest
from qrelay.index.engine import Found, Vectors
from qrelay.index.http.answer import Hit, read_hits
from qrelay.index.http.settings import SearchSettings
from qrelay.index.http.template import filled, path_of, placeholders
from qrelay.index.settings import RetrieverSettings
from qrelay.models.served import Embedders
from qrelay.types import Candidate, Score

log = logging.getLogger(__name__)

NAMES: Final = Names(
    section="retriever.http",
    model="retriever.http.names, path, request",
    api="a search engine that answers in JSON",
    one="query",
)


class HttpEngine:
    """One collection. See the module."""

    def __init__(
        self,
        collection: str,
        settings: SearchSettings,
        connection: Connection,
        blocking: Blocking,
        embedder: str = "",
    ) -> None:
        """embedder: fingerprint of the model whose vectors the request holds; "": it holds none."""
        self._collection = settings.names.get(collection, collection)
        self._settings, self._search = settings, settings.search
        self._told = False
        self._connection, self._blocking = connection, blocking
        self._path = path_of(self._search.path, self._collection)
        self._paged = "from" in placeholders(self._search.request)
        self.embedder = embedder
        self.name = settings.system_name
        asked = (settings.url, settings.method, self._collection, repr(astuple(self._search)[:-1]), embedder)
        self.version = f"{self.name}@{digest(*asked)[:12]}"

    def search(self, texts: Sequence[str], vectors: Vectors | None, limit: int) -> Found:
        found: Found = self._blocking.run(self._all(texts, vectors, limit))
        return found

    async def _all(self, texts: Sequence[str], vectors: Vectors | None, limit: int) -> Found:
        given = [None] * len(texts) if vectors is None else list(vectors)
        found = await asyncio.gather(*(self._one(text, v, limit) for text, v in zip(texts, given, strict=True)))
        return [self._connection.settled(each) if isinstance(each, QrelayError) else each for each in found]

    async def _one(
        self, text: str, vector: NDArray[np.float32] | None, limit: int
    ) -> tuple[Candidate, ...] | QrelayError:
        values = {"query": text, "collection": self._collection, "vector": [] if vector is None else vector.tolist()}
        try:
            hits = await self._hits(values, limit)
        except QrelayError as error:
            return error
        return tuple(Candidate(hit.passage, (Score(self.name, hit.score, rank),)) for rank, hit in enumerate(hits, 1))

    async def _hits(self, values: Mapping[str, Any], limit: int) -> list[Hit]:
        """The first `limit` hits, each once."""
        found: dict[str, Hit] = {}
        offset = 0
        while (left := limit - len(found)) > 0:
            size = min(self._settings.page_size, left) if self._paged else limit
            page = await self._page({**values, "size": size, "from": offset})
            offset, before = offset + len(page), len(found)
            for hit in page:
                found.setdefault(hit.passage.passage_id, hit)
            if not self._paged or len(page) < size or len(found) == before:
                break
        self._tell(sum(hit.left_out for hit in found.values()))
        return list(found.values())[:limit]

    def _tell(self, left_out: int) -> None:
        """Once: of every query it would be too much."""
        if left_out and not self._told:
            self._told = True
            log.warning("%s, for one query: %s", self.name, metadata_remark(left_out))

    async def _page(self, values: Mapping[str, Any]) -> list[Hit]:
        return await self._connection.ask(
            self._path,
            filled(self._search.request, values),
            lambda body: read_hits(body, self._search),
            advice=lambda parameter: f"see {parameter} in retriever.http.request",
            method=self._settings.method,
        )

    def describe(self) -> dict[str, str]:
        return {"version": self.version, "system": self.name, "url": self._settings.url + self._path} | {
            f"engine: {word}": note for word, note in self._connection.notes.items()
        }


class HttpVersions:
    """The collections that the settings name, each with the version that follows from them."""

    def __init__(self, settings: RetrieverSettings, embedders: Embedders) -> None:
        """Raises ConfigError: the credential that the settings name is not there."""
        own = settings.http
        self._settings, self._embedders = settings, embedders
        self._blocking = Blocking("http-engine")
        secret = credential(own)
        self._connection = Connection(
            own.url, api_key=secret, policy=own.policy(), limits=own.limits(), names=NAMES,
            headers=own.headers | authorization(own, secret), one_model=False,
        )  # fmt: skip

    def marks(self) -> Mapping[str, Hashable]:
        return dict.fromkeys(self._settings.collections, 0)

    def open(self, name: str) -> HttpEngine:
        own = self._settings.http
        embedder = self._embedders.configured() if own.wants_vectors else ""
        return HttpEngine(name, own, self._connection, self._blocking, embedder)

    def reembed_command(self, name: str, model: str) -> str:
        return f"the engine's own, for the vectors of {name} by {model}"

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        self._blocking.run(_others_ended())
        self._blocking.close()


async def _others_ended() -> None:
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


def credential(settings: SearchSettings) -> str:
    """Token, key or user:password; "" where none is asked for. Raises ConfigError: it is not where it should be."""
    own = "retriever.http"
    return secret(f"{own}.api_key_env", settings.api_key_env, f"{own}.api_key_file", settings.api_key_file)


def authorization(settings: SearchSettings, secret: str) -> dict[str, str]:
    """The header that says who asks. Raises ConfigError: the credential is none that a header can hold."""
    if not settings.auth:
        return {}
    if not (secret.isascii() and secret.isprintable()) and settings.auth != "basic":
        raise ConfigError("the credential of retriever.http holds characters that no header can")
    match settings.auth:
        case "bearer":
            return {"Authorization": f"Bearer {secret}"}
        case "basic":
            return {"Authorization": f"Basic {b64encode(secret.encode()).decode()}"}
        case _:
            header = settings.search.key_header
            return {header: secret} if header else {"Authorization": f"ApiKey {secret}"}
