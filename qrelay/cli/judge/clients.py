"""Other services, as the judge's commands ask them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from qrelay.client import AsyncClient, Client
from qrelay.errors import QrelayError
from qrelay.types import CandidateSet, JudgedSet, Query


def candidate_sets(data_dir: Path, queries: Sequence[Query]) -> list[CandidateSet]:
    """The queries through the running retriever and reranker, with the judge's sample marked.

    Raises:
        BackendUnavailable: one of them does not run, or does not answer.
        InputError: a query that they refuse.
    """
    with Client(data_dir) as client:
        return list(client.rerank(client.retrieve(queries)))


def judged_sets(data_dir: Path, address: str, collection: str, where: str, after: str) -> Iterator[JudgedSet]:
    """The ledger's sets that `where` selects, by query_id, above `after`. Raises what the sink answers."""
    with Client(data_dir, sink=address) as client:
        yield from client.labels(where, collection=collection, after=after)


def judged_pairs(
    data_dir: Path, address: str, collection: str, pairs: Iterable[tuple[str, str]], where: str, after: str
) -> Iterator[JudgedSet]:
    """The ledger's sets of these (query_id, passage_id), with only those passages to be judged, by query_id, above
    `after`; pairs that `where` does not select are left out. Raises what the sink answers."""
    wanted: dict[str, set[str]] = {}
    for query_id, passage_id in pairs:
        wanted.setdefault(query_id, set()).add(passage_id)
    with Client(data_dir, sink=address, collection=collection) as client:
        for query_id in sorted(each for each in wanted if each > after):
            for found in client.labels(" and ".join(filter(None, [where, f"query_id={query_id}"]))):
                yield _narrowed(found, wanted[query_id])


def _narrowed(found: JudgedSet, passage_ids: Collection[str]) -> JudgedSet:
    candidates = tuple(
        replace(each, sampled=each.sampled and each.passage.passage_id in passage_ids)
        for each in found.candidate_set.candidates
    )
    return replace(found, candidate_set=replace(found.candidate_set, candidates=candidates))


class Ledger:
    """The sink, for re-judgments. An async context manager: one connection for all batches."""

    def __init__(self, data_dir: Path, address: str) -> None:
        """data_dir: of the installation whose settings say how it is reached; address: host:port. Within an event
        loop."""
        self._client = AsyncClient(data_dir, sink=address)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, judged: Sequence[JudgedSet]) -> list[int | QrelayError]:
        """Add the labels; how many of each set were new, or the set's error. Raises BackendUnavailable."""
        return await self._client.ingest(judged, rejudgment=True, on_error="return").list()
