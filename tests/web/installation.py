"""An installation with its console, doubles for the models, and queries that ended as dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qrelay import wire
from qrelay.labels.ledger.ledger import Ledger
from qrelay.types import DeadLetter
from tests import samples
from tests.labels.builders import dead_letter
from tests.pipeline.harness import DOUBLES, IMPATIENT, Installation
from tests.web.reports import HOSTILE

BUDGET = 10**9
ENVIRON = {
    **DOUBLES,
    **IMPATIENT,
    "QRELAY_CONSOLE__ENABLED": "true",
    "QRELAY_JUDGE__BUDGET": json.dumps({"tokens_per_run": BUDGET, "price_per_million_tokens": 2}),
}


def lost(number: int, detail: str = "no answer") -> DeadLetter:
    """A query that can be sent again, and will be labelled then."""
    payload, headers = wire.encode(samples.query(number))
    subject = "qrelay.v1.docs.queries"
    return dead_letter(
        f"l{number}",
        f"q{number}",
        stage="retriever",
        payload=payload,
        headers=headers,
        subject=subject,
        detail=detail,
    )


@contextmanager
def with_dead_letters(folder: Path) -> Iterator[tuple[Installation, Ledger]]:
    """It runs, and the ledger it runs on."""
    with Installation(folder / "data", ENVIRON) as running:
        ledger = Ledger.open(folder / "data" / "ledger.sqlite", create=False)
        ledger.record_dead_letters([lost(0), lost(1, HOSTILE), lost(2)])
        try:
            yield running, ledger
        finally:
            ledger.close()
