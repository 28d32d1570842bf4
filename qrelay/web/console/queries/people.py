"""Who graded how much, how far people agree, and their grades as annotated pairs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from qrelay.labels.browse import people as browse
from qrelay.labels.people_pairs import write_annotated_pairs
from qrelay.web.pages import render
from qrelay.web.routes import route
from qrelay.web.security import Action
from qrelay.web.site import site_of


def people(request: Request) -> Response:
    """Progress and agreement of a collection; of the first one where none is named."""
    wanted = request.query_params.get("of", "")
    with site_of(request).ledger().snapshot() as snapshot:
        names = [each.collection for each in snapshot.stats() if each.queries]
        collection = wanted or (names[0] if names else "")
        if collection:
            snapshot.require_collection(collection)
        scales = browse.by_scale(snapshot.connection, collection)
        found = browse.progress(snapshot.connection, collection, scales)
    agreed = [browse.agreement(scale, grades) for scale, grades in scales.items()]
    return render(
        request, "queries/people.html", collections=names, collection=collection, progress=found, agreed=agreed
    )


def pairs(request: Request) -> Response:
    """The decisions that stand, on one scale, as TSV: what `qrelay label list --slice` writes."""
    collection, scale = request.query_params.get("of", ""), request.query_params.get("scale", "")
    with tempfile.TemporaryDirectory(prefix="qrelay-") as folder:
        path = Path(folder) / "pairs.tsv"
        with site_of(request).ledger().snapshot() as snapshot:
            snapshot.require_collection(collection)
            write_annotated_pairs(snapshot, collection, path, scale)
        data = path.read_bytes()
    headers = {"content-disposition": f'attachment; filename="{collection}-people.tsv"'}
    return Response(data, media_type="text/tab-separated-values; charset=utf-8", headers=headers)


ROUTES = [route("/people", people), route("/people/pairs", pairs, Action.EXPORT)]
