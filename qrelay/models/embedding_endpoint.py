"""An embedding model behind HTTP: OpenAI's `/embeddings`, or `/embed` of text-embeddings-inference.

    openai   POST /embeddings  {"model": m, "input": [texts], "encoding_format": "float"}
             {"data": [{"index": 0, "embedding": [...]}, ...]}
    tei      POST /embed       {"inputs": [texts], "truncate": true, "normalize": false}
             [[...], ...]

Pace, retries, pauses, refusals and limits are those of every endpoint (`qrelay.http`). A batch that is too large for
the endpoint, or refused without a reason, is asked again in halves; one text that is too long is cut in half until it
is read, as a model of this machine cuts at its own maximum length. Vectors of another size, or with numbers that are
not finite, are no answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from qrelay.errors import EndpointRefuses, Oversized, RequestRefused
from qrelay.http.blocking import Blocking
from qrelay.http.connection import Connection, Limits
from qrelay.http.names import Names
from qrelay.http.pacing import Policy
from qrelay.identity import digest
from qrelay.models.embedder import TextKind, Vectors, cut
from qrelay.models.engines import ENDPOINT_MARK, ENDPOINT_NAME, Api, of_dim

log = logging.getLogger(__name__)

_WORDS_A_TOKEN: Final = 0.75
"""Of English text, about; an endpoint says nothing of its tokens."""


@dataclass(frozen=True, slots=True)
class EndpointModel:
    """What is asked, and what is expected. revision: part of the vectors' identity. dimensions: of its vectors.
    dim: how many of these are kept. texts: in one request, at most."""

    api: Api
    model: str
    revision: str
    dimensions: int
    dim: int = 0
    texts: int = 32
    query_prompt: str = ""
    document_prompt: str = ""
    normalise: bool = True

    @property
    def fingerprint(self) -> str:
        """The identity of its vectors: model@revision, what else they follow from, and their size."""
        read = [self.api, self.query_prompt, self.document_prompt, self.dimensions, self.normalise]
        own = f"{self.model}@{self.revision}{ENDPOINT_MARK}{digest(*map(str, read))[:8]}"
        return of_dim(own, self.dim or self.dimensions)


class EndpointEmbedder:
    """See the module. May be called from several threads."""

    name = ENDPOINT_NAME

    def __init__(
        self, url: str, model: EndpointModel, *, api_key: str, policy: Policy, limits: Limits, section: str
    ) -> None:
        """`section` of the settings is what errors name."""
        self._asked, self._section, self._retry_s = model, section, limits.retry_refused_s
        self.fingerprint, self.dim = model.fingerprint, model.dim or model.dimensions
        api = "an OpenAI-compatible API and ends in /v1" if model.api == "openai" else "text-embeddings-inference's"
        self._connection = Connection(
            url, api_key=api_key, policy=policy, limits=limits, names=Names(section, f"{section}.model", api)
        )
        self._blocking = Blocking("embedding endpoint")
        weakref.finalize(self, self._blocking.close)

    @property
    def notes(self) -> dict[str, str]:
        """What people should know of the endpoint now."""
        return self._connection.notes

    def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
        """As the protocol. Raises QrelayError: the endpoint's, after retries and waits."""
        prompt = self._asked.query_prompt if kind == "query" else self._asked.document_prompt
        found = self._blocking.run(self._batches([prompt + text for text in texts]))
        kept: Vectors = found[:, : self.dim]
        if not self._asked.normalise:
            return kept
        lengths = np.linalg.norm(kept, axis=1, keepdims=True)
        unit: Vectors = np.divide(kept, lengths, out=np.zeros_like(kept), where=lengths > 0)
        return unit

    async def _batches(self, texts: Sequence[str]) -> Vectors:
        many = self._asked.texts
        batches = [list(texts[at : at + many]) for at in range(0, len(texts), many)]
        tasks = [asyncio.ensure_future(self._batch(batch)) for batch in batches]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return np.concatenate([np.empty((0, self._asked.dimensions), np.float32), *found])

    async def _batch(self, texts: list[str]) -> Vectors:
        """In halves, where the endpoint does not take all at once."""
        try:
            return await self._ask(texts)
        except (Oversized, RequestRefused) as error:
            if len(texts) > 1:
                middle = len(texts) // 2
                return np.concatenate([await self._batch(texts[:middle]), await self._batch(texts[middle:])])
            if isinstance(error, Oversized) and len(texts[0]) > 1:
                log.warning("a text of %d characters is longer than the endpoint reads: cut", len(texts[0]))
                return await self._batch([texts[0][: len(texts[0]) // 2]])
            raise self._connection.settled(error) from error

    async def _ask(self, texts: list[str]) -> Vectors:
        path, request, rows = _APIS[self._asked.api]
        return await self._connection.ask(
            path,
            request(self._asked.model, texts),
            lambda body: self._vectors(rows(body), len(texts)),
            advice=lambda _: f"check {self._section}.api",
        )

    def _vectors(self, rows: list[Any], count: int) -> Vectors:
        """[count, dimensions]. Raises ValueError: these are none. EndpointRefuses: of another size than the settings
        say."""
        if len(rows) != count:
            raise ValueError(f"{len(rows)} vectors for {count} texts")
        sizes = {len(row) if isinstance(row, list) else -1 for row in rows}
        if -1 in sizes:
            raise ValueError("no list of vectors")
        if sizes != {self._asked.dimensions}:
            raise EndpointRefuses(
                f"the endpoint gives vectors of {' and '.join(map(str, sorted(sizes)))} dimensions, "
                f"{self._section}.dimensions is {self._asked.dimensions}: correct it, and embed the indexes again",
                retry_after_s=self._retry_s,
            )
        try:
            found = np.array(rows)
        except ValueError as error:
            raise ValueError("a list of vectors that hold something else than numbers") from error
        if found.dtype.kind not in "iuf":
            raise ValueError("a list of vectors that hold something else than numbers")
        with np.errstate(over="ignore"):
            vectors = found.astype(np.float32)
        if not np.isfinite(vectors).all():
            raise ValueError("a list of vectors with numbers that are not finite")
        return vectors

    def windows(self, text: str, size: int, stride: int) -> list[str]:
        """By words, of which a token is three quarters: the endpoint's own tokens are not known."""
        words = [match.span() for match in re.finditer(r"\S+", text)]
        return cut(text, words, *(max(1, int(each * _WORDS_A_TOKEN)) for each in (size, stride)))

    def unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Words; which of them it does not know is not known."""
        return sum(len(text.split()) for text in texts), 0


def _openai_request(model: str, texts: list[str]) -> dict[str, Any]:
    return {"model": model, "input": texts, "encoding_format": "float"}


def _openai_rows(body: Any) -> list[Any]:
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list) or not all(isinstance(each, dict) for each in data):
        raise ValueError("no list of embeddings")
    places = [each.get("index", place) for place, each in enumerate(data)]
    if not all(type(place) is int for place in places) or sorted(places) != list(range(len(data))):
        raise ValueError("a list of embeddings whose indexes are not those of the texts")
    return [each.get("embedding") for _, each in sorted(zip(places, data, strict=True), key=lambda pair: pair[0])]


def _tei_request(_: str, texts: list[str]) -> dict[str, Any]:
    return {"inputs": texts, "truncate": True, "normalize": False}


def _tei_rows(body: Any) -> list[Any]:
    if not isinstance(body, list):
        raise ValueError("no list of embeddings")
    return body


_Request = Callable[[str, list[str]], dict[str, Any]]
_APIS: Final[Mapping[str, tuple[str, _Request, Callable[[Any], list[Any]]]]] = {
    "openai": ("/embeddings", _openai_request, _openai_rows),
    "tei": ("/embed", _tei_request, _tei_rows),
}
