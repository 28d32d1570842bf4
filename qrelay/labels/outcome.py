"""How an act ends, in the words of the audit log; without the ledger's libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DONE: Final = "done"
BEGUN: Final = "begun"
UNCHANGED: Final = "nothing changed"


@dataclass(slots=True)
class Told:
    """What an act's row will say of its end, where the act ends without an error."""

    outcome: str = DONE

    def did(self, changed: bool) -> bool:
        """Notes whether the act changed anything, and returns it."""
        self.outcome = DONE if changed else UNCHANGED
        return changed
