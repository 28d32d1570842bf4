"""The judgments that a version was trained on, a few queries a page: where a lineage ends."""

from __future__ import annotations

from itertools import groupby, islice
from operator import itemgetter
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from qrelay.labels.lineage.covered import covered
from qrelay.labels.lineage.trace import judgments
from qrelay.models.registry.manifest import DataSource
from qrelay.web.console.models.listing import registry_of
from qrelay.web.pages import render
from qrelay.web.routes import route
from qrelay.web.site import Site, site_of

PAGE: Final = 10
"""Queries."""


def model_judgments(request: Request) -> Response:
    """Of one data file of one version: those of the queries after one, or of the query that is named."""
    site, given = site_of(request), request.query_params
    version, query_id, after = given.get("version", ""), given.get("id", ""), given.get("after", "")
    source = _source(site, version, given.get("data", ""))
    with site.ledger().snapshot() as snapshot:
        of = covered(snapshot.connection, source.manifest, source.sha256)
        judges = {each.judge_hash: each.identity for each in snapshot.judges(retracted=True).values()}
        rows = judgments(snapshot, of, query_id, after=after, page=PAGE + 1)
        by_query = groupby(rows, key=itemgetter("query_id"))
        found = [(name, list(labels)) for name, labels in islice(by_query, PAGE + 1)]
    return render(
        request, "models/judgments.html", version=version, source=source, covered=of, judges=judges,
        query_id=query_id, queries=found[:PAGE], next=found[PAGE - 1][0] if len(found) > PAGE else "",
    )  # fmt: skip


def _source(site: Site, version: str, name: str) -> DataSource:
    """Raises HTTPException: the version has no such data file, or it is no export of a ledger."""
    for source in registry_of(site).manifest(version).data:
        if source.name == name and "collection" in source.manifest:
            return source
    raise HTTPException(404, f"version {version[:80]!r} was trained on no export {name[:80]!r} of a ledger")


ROUTES = [route("/model/judgments", model_judgments)]
