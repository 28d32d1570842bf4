"""What was measured of the judges (`qrelay judge qualify`), and what their labels may therefore be used for.

    report = read_report(Path("qualification.json"))
    used = Usage(report, unqualified=False)
    used.add(judge, label, (POSITIVES,))
    used.require_fit(judge, label, POSITIVES)   # InputError where training on it is refused
    used.summary()                              # for the manifest

A verdict is one word a judge and use (positives, negatives, gate): qualified; calibrated_only, good enough behind a
calibration map alone; not_qualified; unknown, never measured. Nothing is refused for being unknown: it is said.
People are qualified: they are what judges are measured by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qrelay.errors import ConfigError, InputError
from services.sink.labels.choice import leans_on_stage_scores
from services.sink.ledger.people import HUMAN
from services.sink.ledger.reader import JudgeRow, Label

POSITIVES: Final = "positives"
NEGATIVES: Final = "negatives"
GATE: Final = "gate"
USES: Final = (POSITIVES, NEGATIVES)
"""What an export uses labels as; the gate is the trainer's."""
QUALIFIED: Final = "qualified"
CALIBRATED_ONLY: Final = "calibrated_only"
UNKNOWN: Final = "unknown"
NOT_QUALIFIED: Final = "not_qualified"
_WORST_FIRST: Final = (NOT_QUALIFIED, UNKNOWN, CALIBRATED_ONLY, QUALIFIED)


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


NO_REPORT: Final = Report()
_UNKNOWN_USE: Final = UseVerdict(verdict="unknown", reason="no report measures this judge")
_HUMAN_USE: Final = UseVerdict(verdict="qualified", reason="a person decided, by whom judges are measured")


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


def _shown(value: Any) -> str:
    """A number of a report for people: four digits, a group of numbers in brackets."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_shown(each)}" for name, each in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Usage:
    """The judges whose labels an export uses, as what, and whether that is fit for training."""

    def __init__(self, report: Report, *, unqualified: bool) -> None:
        """`unqualified`: let every label pass, and say so in the summary."""
        self._report = report
        self._unqualified = unqualified
        self._judges: dict[str, JudgeRow] = {}
        self._uses: dict[str, set[str]] = {}
        self._calibrations: dict[str, set[str]] = {}
        self._seen: set[tuple[str, str | None, tuple[str, ...]]] = set()

    def add(self, judge: JudgeRow, label: Label, uses: tuple[str, ...]) -> None:
        """A label that is used as these of USES."""
        hashed = judge.judge_hash
        if (seen := (hashed, label.calibration, uses)) in self._seen:
            return
        self._seen.add(seen)
        self._judges[hashed] = judge
        self._uses.setdefault(hashed, set()).update(uses)
        self._calibrations.setdefault(hashed, set()).add(label.calibration or "")

    def require_fit(self, judge: JudgeRow, label: Label, use: str) -> None:
        """Lets a label pass into training data as one of USES.

        Raises:
            InputError: it must not; with the reason, the numbers and the way round.
        """
        found = self._verdict(judge, use)
        bare = found.verdict == CALIBRATED_ONLY and not label.calibration
        if self._unqualified or (found.verdict != NOT_QUALIFIED and not bare):
            return
        numbers = ", ".join(f"{name} {_shown(value)}" for name, value in sorted(found.numbers.items())) or "none"
        why = "qualified only with a calibration map, and its label has none" if bare else "not qualified"
        raise InputError(
            f"judge {judge.judge_hash[:12]} ({judge.identity.strategy}, {judge.identity.fingerprint}) is {why} for"
            f" {use}: {found.reason} (numbers: {numbers}). Use another judge's labels with --judge, or export"
            " anyway with --unqualified"
        )

    def _verdict(self, judge: JudgeRow, use: str) -> UseVerdict:
        if judge.identity.strategy == HUMAN:
            return _HUMAN_USE
        judged = self._report.verdicts.get(judge.judge_hash)
        return judged.on(use) if judged else _UNKNOWN_USE

    @property
    def verdict(self) -> str:
        """The least of the verdicts on what was used; unknown where nothing was."""
        uses = [(self._judges[hashed], use) for hashed, found in self._uses.items() for use in found]
        words = {self._verdict(judge, use).verdict for judge, use in uses}
        return min(words, key=_WORST_FIRST.index, default=UNKNOWN)

    def summary(self) -> dict[str, Any]:
        """For the manifest: the verdict in all, the report's sha256 or None, and each judge used."""
        return {
            "verdict": self.verdict,
            "unqualified": self._unqualified,
            "report": self._report.sha256 or None,
            "judges": {hashed: self._describe(hashed) for hashed in sorted(self._judges)},
        }

    def _describe(self, hashed: str) -> dict[str, Any]:
        return {
            "strategy": self._judges[hashed].identity.strategy,
            "used_for": sorted(self._uses[hashed]),
            "calibrations": sorted(self._calibrations[hashed] - {""}),
            "uncalibrated_labels": "" in self._calibrations[hashed],
            "stage_scores": leans_on_stage_scores(self._judges[hashed].identity),
            **{use: self._verdict(self._judges[hashed], use).model_dump() for use in (*USES, GATE)},
        }
