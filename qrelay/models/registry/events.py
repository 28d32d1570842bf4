"""The registry's history: events/00000001.json, 00000002.json, … each written once, whole, never changed.

Who appends says which number the event shall have; where another has taken it, nothing is written and the caller
looks again. So decisions that two processes take at once are taken one after the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from qrelay.errors import ModelError
from qrelay.files import fsync_path
from qrelay.models.registry.manifest import LAST_US
from qrelay.models.registry.staging import Staging
from qrelay.parsing import json_document
from qrelay.runtime import faults

PUBLISHED: Final = "published"
GATED: Final = "gated"
PROMOTED: Final = "promoted"
ROLLED_BACK: Final = "rolled_back"
JUDGE_RETRACTED: Final = "judge_retracted"
JUDGE_RESTORED: Final = "judge_restored"
PRUNED: Final = "pruned"
KINDS: Final = (PUBLISHED, GATED, PROMOTED, ROLLED_BACK, JUDGE_RETRACTED, JUDGE_RESTORED, PRUNED)
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. `version`: whose; of `rolled_back` the one that serves from then on, empty: the configured
    model. `detail`: of `gated` the gate's whole report with `passed` and `against`."""

    number: int
    at_us: int
    kind: str
    slot: str = ""
    version: str = ""
    by: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


_EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Event)


class History:
    """The events of one folder; what was read once is kept."""

    def __init__(self, folder: Path, staging: Staging) -> None:
        self._folder = folder
        self._staging = staging
        self._read: list[Event] = []

    def events(self) -> list[Event]:
        """All events so far, in order. Raises ModelError where one is damaged."""
        while True:
            number = len(self._read) + 1
            path = self._path(number)
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return list(self._read)
            self._read.append(_event(number, content, path))

    def append(self, event: Event) -> bool:
        """Writes the event under its number, durably. False: that number is taken, and nothing was written.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        document = {"at_us": event.at_us, "kind": event.kind, "slot": event.slot, "version": event.version,
                    "by": event.by, "detail": dict(event.detail)}  # fmt: skip
        temporary = self._staging.path("event")
        with temporary.open("x", encoding="utf8") as file:
            json.dump(document, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        faults.point("registry.event.written")
        try:
            os.link(temporary, self._path(event.number))
            faults.point("registry.event.linked")
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
            fsync_path(self._folder)
        return True

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:0{_DIGITS}}.json"


def _event(number: int, content: bytes, path: Path) -> Event:
    try:
        found = _EVENT.validate_python({**json_document(content), "number": number})
        if not 0 <= found.at_us <= LAST_US:
            raise ValueError(f"at_us {found.at_us} is no time")
        if found.kind == GATED and not (
            isinstance(found.detail.get("passed"), bool) and isinstance(found.detail.get("against"), str)
        ):
            raise ValueError("a verdict without `passed` and `against`")
        return found
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error}): restore the registry from a backup") from error
