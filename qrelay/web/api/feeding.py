"""Feeding queries to the pipeline, as `qrelay feed` does: acknowledged by the queue, kept in the data folder's
journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from qrelay.errors import BackendTimeout
from qrelay.feed.feeder import FeedReport
from qrelay.feed.publish import publish
from qrelay.formats.queries import query_from
from qrelay.identity import query_id_of, require_collection
from qrelay.types import Query
from qrelay.web.api import models
from qrelay.web.security import Person
from qrelay.web.site import Site


async def feed(site: Site, _: Person, asked: models.FeedRequest) -> models.Fed:
    """Feed queries: they are retrieved, reranked and judged, and their labels come to the ledger."""
    require_collection(asked.collection)
    report = await site.feeding.run(_fed, site, asked)
    if report.failure:
        raise report.failure
    rejected = {place - 1: why for place, why in report.rejected.items()}
    return models.Fed(accepted=report.accepted, known=report.known, rejected=rejected)


def _fed(site: Site, asked: models.FeedRequest) -> FeedReport:
    """In a thread with a loop of its own, because the journal waits for the disk."""
    seconds = site.settings.grpc.default_deadline_s
    return asyncio.run(_published(site, asked, seconds))


async def _published(site: Site, asked: models.FeedRequest, seconds: float) -> FeedReport:
    publishing = publish(
        site.nats(),
        site.settings.data_dir,
        _records(asked.queries),
        collection=asked.collection,
        query_round=asked.round,
        read=partial(_query, asked.collection),
        keep_ids=False,
    )
    report = await asyncio.wait_for(publishing, seconds)
    done = report.accepted + report.known + len(report.rejected)
    if not report.failure and done < len(asked.queries):
        report.failure = BackendTimeout(
            f"the queue took {report.accepted} of {len(asked.queries)} queries within grpc.default_deadline_s "
            f"({seconds:g} s): send the same request again, which feeds nothing twice"
        )
    return report


async def _records(queries: list[models.QueryIn]) -> AsyncIterator[Any]:
    for each in queries:
        query_id = each.query_id or query_id_of(each.query.strip())
        yield {**each.model_dump(exclude={"query"}), "query_id": query_id, "text": each.query}


def _query(collection: str, record: Any) -> Query:
    return query_from(record, collection)
