"""The running retriever, as the round trip asks it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qrelay.client import AsyncClient
from qrelay.types import CandidateSet, Query


class RetrieverRoundTrip:
    """See `generate.RoundTrip`. index_versions: those that answered, in order of appearance."""

    def __init__(self, data_dir: Path, address: str, collection: str, depth: int) -> None:
        """data_dir: of the installation whose settings say how it is reached; address: host:port. depth: how many
        passages are looked through for the source, best first."""
        self._data_dir, self._address, self._collection, self._depth = data_dir, address, collection, depth
        self.index_versions: dict[str, None] = {}

    async def check(self) -> None:
        """Ask something, before a model is loaded for nothing. Raises as `ranks`."""
        await self.ranks(["is the collection served?"], [""])

    async def ranks(self, questions: Sequence[str], doc_ids: Sequence[str]) -> list[int]:
        """As the protocol says. Raises BackendUnavailable, BackendTimeout, or InputError (an unknown collection)."""
        queries = [Query(f"q{n}", text, self._collection) for n, text in enumerate(questions)]
        async with AsyncClient(self._data_dir, retriever=self._address) as client:
            found = await client.retrieve(queries, max_candidates=self._depth).list()
        self.index_versions |= dict.fromkeys(each.index_version for each in found)
        return [_rank(each, doc_id) for each, doc_id in zip(found, doc_ids, strict=True)]


def _rank(found: CandidateSet, doc_id: str) -> int:
    places = (n for n, candidate in enumerate(found.candidates, 1) if candidate.passage.doc_id == doc_id)
    return next(places, 0)
