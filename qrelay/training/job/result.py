"""What came of a job, slot by slot: result.json in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from qrelay.errors import MalformedInput
from qrelay.files import write_atomic
from qrelay.parsing import json_document

_Result = TypeVar("_Result")
PROMOTED: Final = "promoted"
PASSED: Final = "passed"
"""Through the gate; not promoted, by the setting `trainer.promote`."""
REJECTED: Final = "rejected"
UNCHANGED: Final = "unchanged"
"""The same version as serves: training changed nothing."""
RETIRED: Final = "retired"
"""The same version as served once and was replaced or rolled back: people decide."""
NOT_ENOUGH: Final = "not enough data"


@dataclass(frozen=True, slots=True)
class SlotResult:
    """outcome: one of the words above; why: one sentence. queries: that it was trained on. decision: the gate's
    report, empty where it was not asked. metrics: of training, as its manifest has them."""

    slot: str
    outcome: str
    why: str
    version: str = ""
    queries: int = 0
    labels: int = 0
    seconds: float = 0.0
    decision: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the gate let it through."""
        return self.outcome in (PROMOTED, PASSED)

    def write(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        write_atomic(path, json.dumps(asdict(self), indent=1))


@dataclass(frozen=True, slots=True)
class JobResult:
    """Every slot that the job trained."""

    job: str
    collection: str
    slots: tuple[SlotResult, ...]

    @property
    def trained_nothing(self) -> bool:
        """Whether no slot had enough data."""
        return all(each.outcome == NOT_ENOUGH for each in self.slots)

    def write(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        write_atomic(path, json.dumps(asdict(self), indent=1))


def read_slot(path: Path) -> SlotResult | None:
    """A slot's result.json; None: there is none yet. Raises MalformedInput."""
    return _read(path, _slot)


def read_result(path: Path) -> JobResult | None:
    """A job's result.json; None: there is none yet. Raises MalformedInput."""
    return _read(path, lambda found: JobResult(found["job"], found["collection"], tuple(map(_slot, found["slots"]))))


def _slot(found: Mapping[str, Any]) -> SlotResult:
    return SlotResult(**found)


def _read(path: Path, make: Callable[[Any], _Result]) -> _Result | None:
    try:
        return make(json_document(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedInput(f"{path} is damaged ({error!r}): remove it, and run the job again") from error
