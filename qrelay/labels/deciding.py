"""What a person decides about one pair, recorded: by `qrelay label`, over HTTP, on the console's pages.

Several people may grade one pair: the latest decision stands, and each person's own latest grade stays theirs, for
figures of agreement. Taking a grade back appends too: a withdrawal, and then again what another person had said last.
"""

from __future__ import annotations

from qrelay.errors import InputError
from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.changes import hold
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, Override, Written
from qrelay.labels.opening import require_collection
from qrelay.labels.targets import require_passage


def decide(ledger: Ledger, collection: str, wanted: NewOverride, *, known: int | None = None) -> Written:
    """Records the override; it is on disk when this returns. known: the number of the latest decision when the person
    made this one, on a page: sent again, because its answer was lost, it is not recorded again; with another note it
    is.

    Raises:
        UnknownCollection: the ledger holds no query of it.
        InputError: see `overrides.add`; or the id is no passage's that the ledger knows.
        BackendUnavailable: locked, or the disk refuses: nothing is recorded.
    """
    require_collection(ledger, collection)
    with ledger.writing("record an override") as connection:
        hold(connection, {collection})
        numbers = overrides.query_numbers(connection, collection, [wanted.query_id])
        if wanted.grade is not None and numbers:
            require_passage(connection, numbers[wanted.query_id], wanted.passage_id)
        said = overrides.history(connection, collection, wanted.query_id, wanted.passage_id)
        mine = [each for each in said if each.author == wanted.author.strip()]
        if known is not None and mine and mine[-1].override_no > known and _same(mine[-1], wanted):
            return Written(0, 1, 0)
        return overrides.add(connection, collection, [wanted], ledger.now_us(), notes=known is not None)


def take_back(ledger: Ledger, collection: str, query_id: str, passage_id: str, author: str) -> Written:
    """Takes back what the author graded this pair: then another person's latest decision stands, or none.

    Raises:
        InputError: no grade of theirs is left to take back.
        UnknownCollection, BackendUnavailable: as `decide`.
    """
    require_collection(ledger, collection)
    with ledger.writing("take a grade back") as connection:
        hold(connection, {collection})
        said = overrides.history(connection, collection, query_id, passage_id)
        mine = [each for each in said if each.author == author.strip()]
        if not mine or mine[-1].grade is None:
            pair = f"query {query_id[:80]} and passage {passage_id[:80]}"
            raise InputError(
                f"{author.strip()} has no grade of {pair} to take back: load the page again, which shows what stands"
            )
        others = [each for each in said if each.author != author.strip()]
        wanted = [NewOverride(query_id, passage_id, None, "", author, "taken back")]
        if others and others[-1].grade is not None:
            last = others[-1]
            why = f"taken back: what {last.author} said last stands again"
            wanted = [
                NewOverride(query_id, passage_id, None, "", author, why),
                NewOverride(query_id, passage_id, last.grade, last.scale, last.author, last.note),
            ]
        return overrides.add(connection, collection, wanted, ledger.now_us(), act="take back")


def _same(said: Override, wanted: NewOverride) -> bool:
    return (said.grade, said.scale, said.note) == (wanted.grade, wanted.scale, wanted.note)
