"""Every outcome, one JSON line each, written and synced before the next passage is asked about: the file that a
killed run resumes from. Its first line says what the run is; a run with other settings does not continue it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from qrelay.errors import InputError, MalformedInput
from qrelay.files import fsync_path, whole_lines
from qrelay.parsing import json_document

KEPT: Final = "kept"
REJECTED: Final = "rejected"
MISSING: Final = "missing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one passage. outcome: KEPT, REJECTED (`reason`: a rule of faults.py, "unparseable" or
    "round_trip") or MISSING (the model gave no answer; `reason` as judgments name it, `detail` the error's text).
    rank: the document's place among the retriever's passages, from 1; 0: not among them, or not asked."""

    passage_id: str
    doc_id: str
    outcome: str
    reason: str = ""
    question: str = ""
    rank: int = 0
    detail: str = ""
    seconds: float = 0.0


class Journal:
    """The outcomes so far, and the file that they are appended to. `outcomes`: the last one of each passage, in the
    order of their first mention."""

    def __init__(self, path: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        """Opens or begins the file at `path`.

        Raises:
            InputError: it exists and `resume` is not given, or it was begun with another identity.
            MalformedInput: a line in the middle is damaged (a torn last one is cut off).
        """
        self.outcomes: dict[str, Outcome] = {}
        if path.exists() and path.stat().st_size:
            if not resume:
                raise InputError(f"{path} exists from an earlier run: give --resume to continue it, or another --out")
            self._read(path, identity)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"run": dict(identity)}) + "\n", "utf8")
            fsync_path(path)
            fsync_path(path.parent)
        self._file = path.open("a", encoding="utf8")

    def _read(self, path: Path, identity: Mapping[str, Any]) -> None:
        first, *lines = whole_lines(path) or [b'{"run": {}}']
        try:
            known = dict(json_document(first)["run"])
            for line in lines:
                outcome = Outcome(**json_document(line))
                self.outcomes[outcome.passage_id] = outcome
        except (ValueError, TypeError, KeyError) as error:
            raise MalformedInput(
                f"{path} is not a journal of this command ({error}): remove it to start afresh"
            ) from error
        other = sorted(key for key in {*known, *identity} if known.get(key) != identity.get(key))
        if other:
            raise InputError(f"{path} was begun with another {', '.join(other)}: give the same, or another --out")

    def append(self, outcomes: Iterable[Outcome]) -> None:
        """Remember them, durably: on return they survive a power failure."""
        for outcome in outcomes:
            self.outcomes[outcome.passage_id] = outcome
            self._file.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def of(self, kind: str) -> list[Outcome]:
        """The outcomes of one kind, in order."""
        return [each for each in self.outcomes.values() if each.outcome == kind]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
