"""Who may reach training data: `permission` decides it, for every way there (exports, push, calls, triggers, jobs).

    answer = permission(judge, POSITIVES, calibrated=False, report=report, allowed=Allowed())
    answer.granted, answer.text        # False, and one text: whose labels, what was measured, what to do next

A judge is measured where the report in force (`sink.qualification`) has a verdict on its hash; a fusion's is its
map's hash, a cascade's its own, as in the ledger. Labels of a judge that nobody measured, and of one that fell short,
train only where that was allowed, each by a flag of its own. People are what judges are measured by: they need none.

Judgments for evaluation (qrels) are written whatever is known of their judge, with a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qrelay.errors import NotQualified
from qrelay.labels.ledger.precedence import HUMAN
from qrelay.labels.ledger.reader import JudgeRow, Label
from qrelay.labels.qualification import (
    CALIBRATED_ONLY,
    GATE,
    NOT_QUALIFIED,
    QUALIFIED,
    UNKNOWN,
    USES,
    Report,
    UseVerdict,
)

UNMEASURED: Final = "unmeasured"
_WORST: Final = (NOT_QUALIFIED, UNMEASURED, QUALIFIED)
_WORST_VERDICT: Final = (NOT_QUALIFIED, UNKNOWN, CALIBRATED_ONLY, QUALIFIED)
_HUMAN_USE: Final = UseVerdict(verdict="qualified", reason="a person decided, by whom judges are measured")
_FLAGS: Final = {UNMEASURED: "--unmeasured", NOT_QUALIFIED: "--unqualified"}
_MEASURE: Final = (
    "grade 50 of its labels (`qrelay judge slice --n 50`, fill in the column grade), measure it with `qrelay judge"
    " qualify`, and name the report in sink.qualification"
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What somebody allowed at their own risk: training on labels of judges that nobody measured; of judges that were
    measured and fell short."""

    unmeasured: bool = False
    unqualified: bool = False

    def __or__(self, other: Allowed) -> Allowed:
        return Allowed(self.unmeasured or other.unmeasured, self.unqualified or other.unqualified)

    @property
    def fields(self) -> dict[str, bool]:
        """Those that are allowed, for a trigger's record and a job's file."""
        return {name: True for name in ("unmeasured", "unqualified") if getattr(self, name)}


NOTHING: Final = Allowed()
"""Nobody allowed anything."""


@dataclass(frozen=True, slots=True)
class Answer:
    """standing: qualified, not_qualified or unmeasured. flag: what lets it through, empty where nothing need. known:
    whose labels, and what is known of them, in words. text: why it is refused, and what to do next."""

    standing: str
    granted: bool
    flag: str = ""
    known: str = ""
    text: str = ""


def permission(judge: JudgeRow, use: str, *, calibrated: bool, report: Report, allowed: Allowed) -> Answer:
    """Whether labels of the judge may train as `use`, one of USES. `calibrated`: the label went through a map."""
    found = verdict_on(judge, use, report)
    if found.verdict == QUALIFIED or (found.verdict == CALIBRATED_ONLY and calibrated):
        return Answer(QUALIFIED, granted=True)
    whose = f"judge {judge.judge_hash[:12]} ({judge.identity.strategy}, {judge.identity.fingerprint})"
    if found.verdict == UNKNOWN:
        return _unmeasured(whose, use, report, allowed)
    return _fell_short(whose, use, found, allowed)


def _unmeasured(whose: str, use: str, report: Report, allowed: Allowed) -> Answer:
    why = "the report in force has no verdict on it" if report.sha256 else "no report is in force"
    known = f"{whose} was measured by nobody: {why}"
    text = (
        f"{known}, so its labels may not train as {use}. To go on, {_MEASURE}; or let them through at your own risk"
        f" with {_FLAGS[UNMEASURED]} (a policy's triggers: sink.training.unmeasured)"
    )
    return Answer(UNMEASURED, allowed.unmeasured, _FLAGS[UNMEASURED], known, text)


def _fell_short(whose: str, use: str, found: UseVerdict, allowed: Allowed) -> Answer:
    bare = found.verdict == CALIBRATED_ONLY
    why = "qualified only with a calibration map, and its label has none" if bare else "not qualified"
    numbers = ", ".join(f"{name} {_shown(value)}" for name, value in sorted(found.numbers.items())) or "none"
    known = f"{whose} is {why} for {use}: {found.reason} (numbers: {numbers})"
    text = (
        f"{known}. Use another judge's labels with --judge, or let these through at your own risk with"
        f" {_FLAGS[NOT_QUALIFIED]} (a policy's triggers: sink.training.unqualified)"
    )
    return Answer(NOT_QUALIFIED, allowed.unqualified, _FLAGS[NOT_QUALIFIED], known, text)


def verdict_on(judge: JudgeRow, use: str, report: Report) -> UseVerdict:
    """What was measured of the judge for one of USES, or for the gate."""
    return _HUMAN_USE if judge.identity.strategy == HUMAN else report.on(judge.judge_hash, use)


def _shown(value: Any) -> str:
    """A number of a report for people: four digits, a group of numbers in brackets."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_shown(each)}" for name, each in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Usage:
    """The judges whose labels an export uses, as what, and whether those may train."""

    def __init__(self, report: Report, allowed: Allowed = NOTHING) -> None:
        self._report = report
        self._allowed = allowed
        self._judges: dict[str, JudgeRow] = {}
        self._uses: dict[str, set[str]] = {}
        self._calibrations: dict[str, set[str]] = {}
        self._answers: dict[str, dict[Answer, None]] = {}
        self._through: dict[str, set[str]] = {}
        self._seen: set[tuple[str, str | None, tuple[str, ...], bool]] = set()

    def add(self, judge: JudgeRow, label: Label, uses: tuple[str, ...], *, trains: bool) -> None:
        """A label that is used as these of USES; `trains`: as training data.

        Raises:
            NotQualified: it may not train; see `permission`.
        """
        hashed = judge.judge_hash
        if (seen := (hashed, label.calibration, uses, trains)) in self._seen:
            return
        self._judges[hashed] = judge
        self._uses.setdefault(hashed, set()).update(uses)
        self._calibrations.setdefault(hashed, set()).add(label.calibration or "")
        for use in uses:
            calibrated = bool(label.calibration)
            answer = permission(judge, use, calibrated=calibrated, report=self._report, allowed=self._allowed)
            if trains and not answer.granted:
                raise NotQualified(answer.text)
            self._answers.setdefault(hashed, {})[answer] = None
            if trains and answer.flag:
                self._through.setdefault(hashed, set()).add(answer.flag)
        self._seen.add(seen)

    @property
    def verdict(self) -> str:
        """The least of the verdicts on what was used; unknown where nothing was."""
        uses = [(self._judges[hashed], use) for hashed, found in self._uses.items() for use in found]
        words = {verdict_on(judge, use, self._report).verdict for judge, use in uses}
        return min(words, key=_WORST_VERDICT.index, default=UNKNOWN)

    @property
    def warnings(self) -> list[str]:
        """What whoever uses the labels must know, a line each: whose were measured by nobody, or fell short."""
        lines = {answer.known: None for hashed in sorted(self._answers) for answer in self._answers[hashed]}
        return [line for line in lines if line]

    def summary(self) -> dict[str, Any]:
        """For the manifest: the verdict in all, what was allowed, the report's sha256 or None, each judge used."""
        return {
            "verdict": self.verdict,
            "unqualified": self._allowed.unqualified,
            "unmeasured": self._allowed.unmeasured,
            "report": self._report.sha256 or None,
            "judges": {hashed: self._describe(hashed) for hashed in sorted(self._judges)},
            "warnings": self.warnings,
        }

    def _describe(self, hashed: str) -> dict[str, Any]:
        judge = self._judges[hashed]
        return {
            "strategy": judge.identity.strategy,
            "verdict": min((answer.standing for answer in self._answers[hashed]), key=_WORST.index),
            "let_through_by": sorted(self._through.get(hashed, ())),
            "used_for": sorted(self._uses[hashed]),
            "calibrations": sorted(self._calibrations[hashed] - {""}),
            "uncalibrated_labels": "" in self._calibrations[hashed],
            "stage_scores": judge.identity.uses_retrieval_scores,
            **{use: verdict_on(judge, use, self._report).model_dump() for use in (*USES, GATE)},
        }
