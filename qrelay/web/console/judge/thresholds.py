"""What thresholds of P(relevant) would take of a collection's labels, judge by judge.

The page holds the whole histogram, so its script counts while a threshold is dragged; the form asks the server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from qrelay.errors import InputError
from qrelay.labels.browse.thresholds import BINS, Histogram
from qrelay.web.pages import render
from qrelay.web.routes import route
from qrelay.web.site import Site, site_of

HEIGHT: Final = 100
"""Of the tallest bar."""


async def thresholds(request: Request) -> Response:
    """Of one judge's labels; of the first judge and collection where none is named. While the labels of a collection
    are counted for the first time, the page says so."""
    site, given = site_of(request), request.query_params
    rules = site.sink.rules
    collections, collection = await site.reading.run(_chosen, site, given.get("of", ""))
    counted = await site.histograms.of(collection) if collection else []
    found = counted or []
    chosen = next((each for each in found if each.judge.judge_hash.startswith(given.get("judge", ""))), None)
    if chosen is None and found:
        raise InputError(f"judge {given['judge'][:80]!r} has no label of {collection!r}: choose one that has")
    from_ = _hundredths(given.get("positive", ""), round(rules.confident_positive * BINS))
    under = _hundredths(given.get("negative", ""), round(rules.negative_threshold * BINS))
    return render(
        request, "judge/thresholds.html", collections=collections, collection=collection, histograms=found,
        chosen=chosen, positive=from_, negative=under, rules=rules, bars=_bars(chosen) if chosen else [],
        counting=counted is None, **_figures(chosen, from_, under) if chosen else {},
    )  # fmt: skip


def _chosen(site: Site, wanted: str) -> tuple[list[str], str]:
    """Collections, and the one that is shown. Raises UnknownCollection."""
    with site.ledger().snapshot() as snapshot:
        names = [each.collection for each in snapshot.stats() if each.judgments]
        collection = wanted or (names[0] if names else "")
        if collection:
            snapshot.require_collection(collection)
        return names, collection


def _figures(of: Histogram, positive: int, negative: int) -> dict[str, Any]:
    """counts: labels that reach k hundredths, for each k from 0 on: all of them, and those with a relevant grade."""
    positives, negatives = of.reaching(positive), of.below(negative)
    rest = of.labels - positives - negatives
    return {
        "positives": positives,
        "negatives": negatives,
        "neither": max(rest, 0),
        "both": max(-rest, 0),
        "agreeing": sum(of.relevant[positive:]),
        "counts": [_from_the_end(of.bins), _from_the_end(of.relevant)],
    }


def _from_the_end(bins: Sequence[int]) -> list[int]:
    return [*list(accumulate(reversed(bins)))[::-1], 0]


def _bars(of: Histogram) -> list[tuple[int, float, float, int]]:
    """(hundredths, height of all, height of the relevant, labels) of bins that hold any; 1 is shown with 0.99."""
    bins, relevant = _shown(of.bins), _shown(of.relevant)
    most = max(bins) or 1
    heights = zip(bins, relevant, strict=True)
    return [(place, _height(n / most), _height(k / most), n) for place, (n, k) in enumerate(heights) if n]


def _shown(bins: Sequence[int]) -> list[int]:
    return [*bins[: BINS - 1], bins[BINS - 1] + bins[BINS]]


def _height(share: float) -> float:
    """Of a bar; by the square root, so that a few labels are seen beside many."""
    return round(HEIGHT * math.sqrt(share), 1)


def _hundredths(text: str, otherwise: int) -> int:
    """A threshold that a form sent. Raises InputError: it is none."""
    if not text:
        return otherwise
    if text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= BINS:
        return int(text)
    raise InputError(f"a threshold of {text[:40]!r} hundredths: 0 to {BINS} are possible")


ROUTES = [route("/judge/thresholds", thresholds)]
