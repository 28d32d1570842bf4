"""What a person decides about one pair, recorded: by `qrelay label`, over HTTP, on the console's pages."""

from __future__ import annotations

from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, Written
from qrelay.labels.opening import require_collection
from qrelay.labels.targets import require_passage


def decide(ledger: Ledger, collection: str, wanted: NewOverride) -> Written:
    """Records the override; it is on disk when this returns.

    Raises:
        UnknownCollection: the ledger holds no query of it.
        InputError: see `overrides.add`; or the id is no passage's that the ledger knows.
        BackendUnavailable: locked, or the disk refuses: nothing is recorded.
    """
    require_collection(ledger, collection)
    with ledger.writing("record an override") as connection:
        known = overrides.query_numbers(connection, collection, [wanted.query_id])
        if wanted.grade is not None and known:
            require_passage(connection, known[wanted.query_id], wanted.passage_id)
        return overrides.add(connection, collection, [wanted], ledger.now_us())
