"""What calls take, as records: texts, objects as query lines have them, records; and where they come from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

from qrelay.client.results import AsyncResults
from qrelay.errors import InputError, InvalidQuery, QrelayError
from qrelay.feed.fed import fed_query
from qrelay.feed.pool import Pools, of_candidates
from qrelay.feed.windows import Windows
from qrelay.formats.queries import parse_line, query_from
from qrelay.formats.records import require_text
from qrelay.identity import require_collection
from qrelay.types import CandidateSet, JudgedSet, Query

AskedQuery = Query | str | Mapping[str, Any]
"""A text, whose id is made of it; or an object with `text`, `query_id` and what else a line of queries.jsonl has."""
AskedSet = CandidateSet | Mapping[str, Any]
"""A set; or an object as `qrelay feed --format candidates` reads it, with `text`, `query_id` and `candidates`."""
AskedFeed = AskedQuery | CandidateSet
ONE = (str, Mapping, Query, CandidateSet, JudgedSet)
"""Types of one item, whatever else they are."""
Convert = Callable[[Any, str], Any]
"""The record of an item, asked of this collection where it names none. Raises InputError."""
_GIVEN = "client"
"""`index_version` of candidates that the caller gave."""


def query(item: Any, collection: str) -> Query:
    """Raises InputError: none can be made of the item."""
    if isinstance(item, Query):
        return item
    require_collection(named(collection))
    if isinstance(item, str):
        require_text(item, "the query")
        return parse_line(item, collection, "plain")
    if isinstance(item, Mapping):
        return query_from(dict(item), collection)
    raise InvalidQuery(f"a {type(item).__name__} is no query: give a text, a qrelay.types.Query or a dict")


def candidate_set(item: Any, collection: str) -> CandidateSet:
    """Raises InputError: none can be made of the item."""
    if isinstance(item, CandidateSet):
        return item
    if isinstance(item, Mapping):
        require_collection(named(collection))
        return Pools(of_candidates(collection), {}, Windows(), _GIVEN)(json.dumps(dict(item)))
    raise InvalidQuery(f"a {type(item).__name__} is no candidate set: give a CandidateSet, or a dict with candidates")


def judged_set(item: Any, _: str) -> JudgedSet:
    """Raises InputError: the item is none."""
    if isinstance(item, JudgedSet):
        return item
    raise InvalidQuery(f"a {type(item).__name__} is no judged set: give what judge() returns")


def fed(item: Any, collection: str) -> Query | CandidateSet:
    """A query for the retriever, or a set for the judge. Raises InputError: neither can be made of the item."""
    given = isinstance(item, CandidateSet) or (isinstance(item, Mapping) and "candidates" in item)
    record = candidate_set(item, collection) if given else query(item, collection)
    own = fed_query(record).collection
    if own != collection:
        raise InvalidQuery(f"a query of the collection {own!r} is fed to {collection!r}: feed each by itself")
    return record


def named(collection: str) -> str:
    if not collection:
        raise InvalidQuery("of which collection? Give collection=…, to the call or to the client")
    return collection


def rows(items: Any) -> Any:
    """Of a data frame, whose iterator gives the names of its columns, the rows as dicts; else the items."""
    return items.to_dict("records") if hasattr(items, "columns") and hasattr(items, "to_dict") else items


async def batches(items: Any, most: int) -> AsyncIterator[Sequence[Any]]:
    """The items, at most so many at a time, as they come."""
    items = rows(items)
    if isinstance(items, AsyncResults):
        async for batch in items.rest():
            yield batch
    elif isinstance(items, AsyncIterable):
        async with aclosing(_prompt(items, most)) as found:
            async for batch in found:
                yield batch
    else:
        iterator = iter(items)
        while batch := [*islice(iterator, most)]:
            yield batch


async def _prompt(items: AsyncIterable[Any], most: int) -> AsyncGenerator[Sequence[Any], None]:
    """The items that are there at once together; those that are do not wait for those that are not."""
    iterator, batch = aiter(items), list[Any]()
    coming: asyncio.Future[Any] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(_next(iterator))
            await asyncio.sleep(0)
            if batch and (len(batch) >= most or not coming.done()):
                yield batch
                batch = []
            batch += await coming
    except StopAsyncIteration:
        if batch:
            yield batch
    finally:
        if coming:
            coming.cancel()


async def _next(iterator: AsyncIterator[Any]) -> list[Any]:
    return [await anext(iterator)]


async def records(
    items: Iterable[Any] | AsyncIterable[Any], most: int, convert: Convert, collection: str
) -> AsyncIterator[Sequence[Any]]:
    """The items as records, in batches; in place of one that is none, the error. Errors among the items stay."""

    def record(item: Any) -> Any:
        try:
            return item if isinstance(item, QrelayError) else convert(item, collection)
        except InputError as error:
            return error

    async for batch in batches(items, most):
        yield [record(item) for item in batch]
