"""<data_dir>/rounds/<collection>/rounds.json: what every round has done so far.

Written after each step. A run that was killed resumes with the first step that is not in it; every step is safe to
take twice.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from qrelay.errors import BackendUnavailable, MalformedInput
from qrelay.files import write_atomic
from qrelay.parsing import json_document
from qrelay.training.job.result import SlotResult


@dataclass(slots=True)
class Round:
    """number: as queries carry it (`qrelay feed --round`). committed, dead: queries that ended so. slots: what the
    job made of it. done: the services serve what it promoted."""

    number: int
    fed: bool = False
    committed: int = 0
    dead: int = 0
    job: str = ""
    slots: list[SlotResult] = field(default_factory=list)
    done: bool = False

    @property
    def passed(self) -> bool:
        """Whether the gate let a slot's version through."""
        return any(each.passed for each in self.slots)


@dataclass(slots=True)
class Series:
    """Rounds that follow each other. name: in their jobs' names. first: number of the first one. stopped: why there
    are no more; empty: there may be."""

    collection: str
    name: str
    first: int = 0
    rounds: list[Round] = field(default_factory=list)
    stopped: str = ""

    @property
    def done(self) -> int:
        """Rounds that are finished."""
        return sum(each.done for each in self.rounds)

    def current(self) -> Round:
        """The round to work on: one that was begun, else a new one."""
        if not self.rounds or self.rounds[-1].done:
            self.rounds.append(Round(self.first + len(self.rounds)))
        return self.rounds[-1]


_SERIES: Final = TypeAdapter(Series)


class StateFile:
    """The file of one collection. Every method may raise BackendUnavailable: the folder cannot be written."""

    def __init__(self, data_dir: Path, collection: str) -> None:
        self.path = data_dir / "rounds" / collection / "rounds.json"
        self._collection = collection

    def read(self) -> Series:
        """The series, or a new one. Raises MalformedInput: the file is damaged."""
        try:
            return _SERIES.validate_python(json_document(self.path.read_bytes()))
        except FileNotFoundError:
            return Series(self._collection, secrets.token_hex(4))
        except ValueError as error:
            why = " ".join(str(error).split())[:200]
            raise MalformedInput(f"{self.path} is damaged ({why}): move it away to begin a new series") from error

    def write(self, series: Series) -> None:
        """Replaces the file, whole or not at all."""
        try:
            write_atomic(self.path, json.dumps(asdict(series), indent=1))
        except OSError as error:
            raise BackendUnavailable(f"cannot write {self.path}: {error.strerror}") from error

    def restart(self) -> Series:
        """A new series whose rounds are numbered on; the old one is kept beside it."""
        old = self.read()
        if old.rounds:
            self.path.rename(self.path.with_name(f"rounds-{old.name}.json"))
        fresh = Series(self._collection, secrets.token_hex(4), old.first + len(old.rounds))
        self.write(fresh)
        return fresh
