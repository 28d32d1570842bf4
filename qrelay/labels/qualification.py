"""What was measured of the judges: the report of `qrelay judge qualify`. `permission.py` says what follows from it.

    report = read_report(Path("qualification.json"))
    report.on(judge_hash, POSITIVES).verdict

A verdict is one word a judge and use (positives, negatives, gate): qualified; calibrated_only, good enough behind a
calibration map alone; not_qualified; unknown, never measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qrelay.errors import ConfigError

POSITIVES: Final = "positives"
NEGATIVES: Final = "negatives"
GATE: Final = "gate"
USES: Final = (POSITIVES, NEGATIVES)
"""What an export uses labels as; the gate is the trainer's."""
QUALIFIED: Final = "qualified"
CALIBRATED_ONLY: Final = "calibrated_only"
UNKNOWN: Final = "unknown"
NOT_QUALIFIED: Final = "not_qualified"


class UseVerdict(BaseModel):
    """The verdict on one use: its word, why in words, and the numbers behind it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: Literal["qualified", "calibrated_only", "not_qualified", "unknown"]
    reason: str
    numbers: dict[str, Any] = Field(default_factory=dict)


class JudgeVerdict(BaseModel):
    """The verdicts on one judge. `judge`: its hash; None where it was never identified, and then nobody's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    judge: str | None = Field(pattern="^[0-9a-f]{64}$")
    positives: UseVerdict
    negatives: UseVerdict
    gate: UseVerdict

    def on(self, use: str) -> UseVerdict:
        """The verdict on one of USES, or on "gate"."""
        return {POSITIVES: self.positives, NEGATIVES: self.negatives, GATE: self.gate}[use]


class _ReportFile(BaseModel):
    """The part of the file that the sink reads; whatever else stands in it is the judge's."""

    verdicts: dict[str, JudgeVerdict]


@dataclass(frozen=True, slots=True)
class Report:
    """The verdicts by judge hash, and which file they came from (sha256; empty: there is no report)."""

    verdicts: Mapping[str, JudgeVerdict] = field(default_factory=dict)
    sha256: str = ""

    def on(self, judge_hash: str, use: str) -> UseVerdict:
        """The verdict on one judge and use; unknown where the report has none."""
        judged = self.verdicts.get(judge_hash)
        return judged.on(use) if judged else _UNKNOWN_USE


_UNKNOWN_USE: Final = UseVerdict(verdict="unknown", reason="no report measures this judge")
NO_REPORT: Final = Report()


def read_report(path: str | Path) -> Report:
    """The report in the file `path`; an empty path: none.

    Raises:
        ConfigError: absent, or not what `qrelay judge qualify` writes.
    """
    if not str(path):
        return NO_REPORT
    try:
        data = Path(path).read_bytes()
        judges = [each for each in _ReportFile.model_validate_json(data).verdicts.values() if each.judge]
    except OSError as error:
        raise ConfigError(f"sink.qualification: cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(
            f"sink.qualification: {path} is no report of `qrelay judge qualify`: {_problems(error)}; write it again"
        ) from error
    verdicts = {str(each.judge): each for each in judges}
    if any(verdicts[str(each.judge)] != each for each in judges):
        raise ConfigError(f"sink.qualification: {path} gives two verdicts on one judge; write it again")
    return Report(verdicts, hashlib.sha256(data).hexdigest())


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
