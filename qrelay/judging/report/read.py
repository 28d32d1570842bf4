"""Reports on disk, read again: of `qrelay judge qualify`, `eval` and `calibrate --report`.

found = read_measured(Path("qualification.json"))
found.systems["judge"].auc, found.verdicts["judge"].positives.verdict
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qrelay.errors import InputError

MAX_BYTES: Final = 16 * 1024**2
USES: Final = ("positives", "negatives", "gate")
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Point = tuple[Share, Share, Annotated[float, Field(ge=0, le=1e12)]]
"""Mean P(relevant) of a bin, the share that people found relevant, pairs."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Confusion(_Part):
    """counts[i][j]: pairs that people gave grades[i] and the system grades[j]."""

    grades: tuple[int, ...] = Field(max_length=101)
    counts: tuple[tuple[Count, ...], ...]

    @model_validator(mode="after")
    def _square(self) -> Confusion:
        if [len(row) for row in self.counts] != [len(self.grades)] * len(self.grades):
            raise ValueError("counts has not a row and a column a grade")
        return self

    @property
    def rows(self) -> list[tuple[int, tuple[int, ...]]]:
        """People's grade, and how often the system gave each of `grades` then."""
        return list(zip(self.grades, self.counts, strict=True))


class Reliability(_Part):
    """Points before and after calibration; empty: no probabilities were measured."""

    before: tuple[Point, ...] = Field((), max_length=1000)
    after: tuple[Point, ...] = Field((), max_length=1000)


class System(_Part):
    """One system's figures, None where they are not known; see `qrelay/judging/qualification/figures.py`."""

    auc: float | None = None
    auc_ci: tuple[float | None, float | None] | None = None
    auc_within_query: float | None = None
    kappa_binary: float | None = None
    kappa_binary_ci: tuple[float | None, float | None] | None = None
    kappa_graded: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    missing: Count = 0
    tokens: Count = 0
    inputs: tuple[str, ...] = ()
    uses_stage_scores: bool = False
    confusion: Confusion | None = None
    reliability: Reliability = Reliability()


class Use(_Part):
    """The verdict on one use."""

    verdict: Literal["qualified", "calibrated_only", "not_qualified", "unknown"]
    reason: str = ""
    numbers: dict[str, Any] = Field(default_factory=dict)


class Verdicts(_Part):
    """The verdicts on one judge; `judge`: its hash, where it was identified."""

    judge: str | None = None
    positives: Use
    negatives: Use
    gate: Use

    def on(self, use: str) -> Use:
        """The verdict on one of USES."""
        return {"positives": self.positives, "negatives": self.negatives, "gate": self.gate}[use]


class MeasuredReport(_Part):
    """See the module. verdicts: none where the report only compares."""

    n: Count = 0
    queries: Count = 0
    relevant: Count = 0
    relevant_from: int | None = None
    sha256: str = ""
    systems: dict[str, System]
    verdicts: dict[str, Verdicts] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """A folder's report.json has what was measured on under `data`."""
        data = value.get("data") if isinstance(value, Mapping) else None
        return {**data, **value} if isinstance(data, Mapping) else value


def read_measured(path: Path) -> MeasuredReport:
    """The report in a file.

    Raises:
        InputError: absent, too large, or no such report.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"{path} has more than {MAX_BYTES} bytes: it is no report")
        return MeasuredReport.model_validate_json(data)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} is no report of `qrelay judge qualify` or `eval`: {where[:200]}: {first['msg'][:200]}"
        ) from error
