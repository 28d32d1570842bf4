"""The audit: one read of the ledger, every check, one report.

    report = audit(ledger, "docs", Request(auditor="judge-72b's hash"), rules)

The report is JSON with these keys, which stay:

    format       "qrelay-audit/1"
    collection, ledger {queries, judgments, judged_pairs, change_no}
    judges       by hash: strategy, scale, model, audited, measurements, missing, cached
    auditor      hash of the judge of the second labels, or null
    overrides    whether people's decisions were second labels
    rules        of mining
    figures      by name (`figures.FIGURES`): value, low, high, n, why; value null: not measured, and why says why;
                 low and high: 95% interval of an estimate, null for a census
    checks       false_negatives, conflicts, near_duplicates, leakage (null where no evaluation set was given), drift,
                 judged_at, missing, sources: see the `result` of each check's file
    gate         passed, conditions, violations; see `gate.py`

All checks see the labels of the audited judges: those that --judge names, or all but the auditor. Memory does not
grow with the ledger but for what `conflicts.py`, `duplicates.py` and `leakage.py` state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from qrelay.errors import InputError
from qrelay.labels.audit.breakdown import Breakdown
from qrelay.labels.audit.conflicts import Conflicts, repeated_queries
from qrelay.labels.audit.coverage import Judged, MissingPairs, cached_share, judge_table
from qrelay.labels.audit.drift import drift, drift_figures
from qrelay.labels.audit.duplicates import LIMIT, Duplicates
from qrelay.labels.audit.evaluation import EvaluationSet
from qrelay.labels.audit.false_negatives import SIZE, FalseNegatives
from qrelay.labels.audit.figures import FIGURES, Figure, not_measured
from qrelay.labels.audit.gate import Condition, judge
from qrelay.labels.audit.judges import Judges
from qrelay.labels.audit.leakage import Leakage
from qrelay.labels.audit.measurements import BINS, Measurements, measurements
from qrelay.labels.choice import chosen_judges, describe_judges
from qrelay.labels.examples import Example, examples
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.reader import JudgeRow, Snapshot
from qrelay.labels.mining.rules import MiningRules

FORMAT: Final = "qrelay-audit/1"


@dataclass(frozen=True, slots=True)
class Request:
    """What to audit with what.

    judge: whose labels, as exports name judges (None: all but the auditor's); auditor: the judge of the second
    labels, named likewise; overrides: people's decisions are second labels too; sample_size, seed, pairs: the sample
    of negatives, see `false_negatives.py`; evaluation: what must not be in the training data; periods: of drift,
    None for weeks; limit: texts that are compared with each other, see `duplicates.py`.
    """

    judge: str | None = None
    auditor: str | None = None
    overrides: bool = False
    sample_size: int = SIZE
    seed: int = 0
    pairs: Sequence[tuple[str, str]] | None = None
    evaluation: EvaluationSet = field(default_factory=EvaluationSet)
    periods: int | None = BINS
    limit: int = LIMIT


def audit(
    ledger: Ledger,
    collection: str,
    request: Request,
    rules: MiningRules,
    conditions: Sequence[Condition] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The report; see the module. `on_progress` is called with (queries read, queries in all).

    Raises:
        UnknownCollection: the ledger holds no query of it.
        InputError: an unknown judge, an auditor that is the audited judge, a scale without a relevant grade.
        MalformedInput: an evaluation file that cannot be read.
        BackendUnavailable: the database does not answer.
    """
    with ledger.snapshot() as snapshot:
        stats = snapshot.require_collection(collection)
        judges, auditor = who_is_who(snapshot, collection, request, rules)
        checks = _Checks.of(snapshot, collection, judges, auditor, request)
        for done, record in enumerate(examples(snapshot, collection, judges.audited, rules, people=True), 1):
            checks.add(record)
            if on_progress:
                on_progress(done, stats.queries)
        counted = measurements(snapshot, collection, request.periods)
        change_no = snapshot.change_no(collection)
    results, figures = checks.results(counted)
    counts = {name: getattr(stats, name) for name in ("queries", "judgments", "judged_pairs")}
    return {
        "format": FORMAT,
        "collection": collection,
        "ledger": {**counts, "change_no": change_no},
        "judges": judge_table(counted, judges),
        "auditor": auditor.judge_hash if auditor else None,
        "overrides": request.overrides,
        "rules": {**asdict(rules), "relevant_grades": dict(sorted(rules.relevant_grades.items()))},
        "figures": {name: figures[name].as_json() for name in FIGURES},
        "checks": results,
        "gate": judge(list(conditions), figures),
    }


def who_is_who(
    snapshot: Snapshot, collection: str, request: Request, rules: MiningRules
) -> tuple[Judges, JudgeRow | None]:
    """The audited judges, and the auditor.

    Raises:
        InputError: a judge that is unknown, or the only one to audit and the auditor at once.
    """
    every = snapshot.judges()

    def here() -> set[int]:
        return snapshot.judges_of(collection)

    auditor = next(iter(chosen_judges(every, request.auditor, here).values())) if request.auditor else None
    audited = chosen_judges(every, request.judge, here)
    if auditor and request.judge and auditor.judge_no in audited:
        raise InputError(
            f"--auditor {request.auditor!r} is the judge whose labels are audited ({describe_judges(audited)}): a"
            " judge agrees with itself; name a stronger one that judged the sample again"
        )
    audited = {no: row for no, row in audited.items() if no > 0 and (auditor is None or no != auditor.judge_no)}
    if rules.without_stage_scores:
        audited = {no: row for no, row in audited.items() if not row.identity.uses_retrieval_scores}
    if auditor and not audited.keys() & here():
        raise InputError(
            f"--auditor {request.auditor!r} made all labels of collection {collection} that could be audited: name a"
            " judge other than the one that labelled it, after `qrelay judge rejudge` with it"
        )
    return Judges(every, audited, rules.relevant_grades), auditor


@dataclass(frozen=True, slots=True)
class _Checks:
    """Every check that reads queries."""

    judges: Judges
    false_negatives: FalseNegatives
    conflicts: Conflicts
    duplicates: Duplicates
    leakage: Leakage
    judged: Judged
    missing: MissingPairs
    breakdown: Breakdown

    @classmethod
    def of(
        cls, snapshot: Snapshot, collection: str, judges: Judges, auditor: JudgeRow | None, request: Request
    ) -> _Checks:
        sampled = FalseNegatives(
            judges, auditor=auditor, overrides=request.overrides, size=request.sample_size, seed=request.seed,
            pairs=request.pairs,
        )  # fmt: skip
        return cls(
            judges,
            sampled,
            Conflicts(judges, repeated_queries(snapshot, collection)),
            Duplicates(judges, limit=request.limit),
            Leakage(request.evaluation),
            Judged(),
            MissingPairs(),
            Breakdown(judges),
        )

    def add(self, record: Example) -> None:
        for each in (self.false_negatives, self.conflicts, self.duplicates, self.leakage, self.judged, self.missing,
                     self.breakdown):  # fmt: skip
            each.add(record)

    def results(self, counted: Measurements) -> tuple[dict[str, Any], dict[str, Figure]]:
        """(the report's checks, its figures)."""
        conflicts, near = self.conflicts.result(), self.duplicates.result()
        drifted, leaks = drift(counted, self.judges), self.leakage.figures()
        rate = self.false_negatives.rate()
        figures = {
            **{name: Figure(count) for name, count in self.breakdown.totals().items()},
            **_rate_figures(rate),
            **_conflict_figures(conflicts),
            "near_duplicate_share": self.duplicates.near_share(),
            "near_duplicate_negatives": Figure(near["negatives"]),
            "near_duplicate_conflicts": Figure(near["conflicts"]),
            **leaks,
            **drift_figures(drifted),
            **self.judged.figures(),
            "missing_share": self.missing.figure(),
            "cached_share": cached_share(counted),
        }
        checks = {
            "false_negatives": self.false_negatives.result(),
            "conflicts": conflicts,
            "near_duplicates": near,
            "leakage": self.leakage.result() if leaks["leakage"].value is not None else None,
            "drift": drifted,
            "judged_at": self.judged.result(),
            "missing": self.missing.result(),
            "sources": self.breakdown.result(),
        }
        return checks, figures


def _rate_figures(rate: Figure) -> dict[str, Figure]:
    name = "false_negative_rate"
    if rate.value is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), not_measured(rate.why))
    return {name: rate, f"{name}_low": Figure(rate.low, rate.n), f"{name}_high": Figure(rate.high, rate.n)}


def _conflict_figures(found: Mapping[str, Any]) -> dict[str, Figure]:
    n = found["texts"]
    parts = ("exported", "between_judges", "relevance")
    return {
        "conflicts": Figure(found["conflicts"], n),
        **{f"conflicts_{part}": Figure(found[part], n) for part in parts},
    }
