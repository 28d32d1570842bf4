"""Which queries are meant, where they are named by their texts or their age."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from qrelay.errors import InputError
from qrelay.feed.journal import Journal
from qrelay.forgetting import stores
from qrelay.forgetting.forget import Place, connected, opened_journal
from qrelay.formats.lines import all_lines
from qrelay.identity import forgotten_hash
from qrelay.labels.ledger import forgetting
from qrelay.labels.ledger.times import microseconds

_LONGEST: Final = 200_000.0
"""Days; more than there are queries of."""
_EVER: Final = 2**63 - 1
"""Microseconds; a time before which every query came."""


def lines_of(path: Path) -> list[str]:
    """A file's lines, without empty ones. Raises InputError: it is not UTF-8, or cannot be read."""
    try:
        return [text for line in all_lines(path) if (text := line.decode().strip())]
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8: write one a line, in UTF-8") from None


async def ids_with_texts(place: Place, collection: str, texts: Collection[str]) -> set[str]:
    """Queries of the collection, in whatever store, with exactly one of these texts."""
    with place.ledger.snapshot() as snapshot:
        found = forgetting.ids_of_texts(snapshot.connection, collection, texts)
    wanted = set(texts)
    with opened_journal(place, collection) as journal:
        found |= _in_journal(journal, wanted) if journal else set()
    async with connected(place) as broker:
        if broker is None:
            return found
        async for _, message in stores.messages(broker, collection):
            read = stores.query_in(message.payload)
            if read and read[1].query_id and read[1].collection == collection and read[1].text.strip() in wanted:
                found.add(read[1].query_id)
    return found


def _in_journal(journal: Journal, wanted: Collection[str]) -> set[str]:
    return {each.query_id for each in journal.entries() if each.query and each.query.text.strip() in wanted}


def expired(place: Place, days: Mapping[str, float]) -> dict[str, set[str]]:
    """collection -> its queries that are older than it keeps them, by when they were fed, committed or died; and
    those whose forgetting was begun and did not end, as far as ledger or journal know them."""
    found: dict[str, set[str]] = {}
    for collection, kept in days.items():
        before = datetime.now(UTC) - timedelta(days=min(kept, _LONGEST))
        with place.ledger.snapshot() as snapshot:
            found[collection] = forgetting.ids_before(snapshot.connection, collection, microseconds(before))
            begun = forgetting.begun(snapshot.connection, collection)
            known = forgetting.ids_before(snapshot.connection, collection, _EVER) if begun else set()
        with opened_journal(place, collection) as journal:
            found[collection] |= journal.ids_before(before) if journal else set()
            known |= {*journal.query_ids()} if journal and begun else set()
        found[collection] |= {each for each in known if forgotten_hash(collection, each) in begun}
    return found
