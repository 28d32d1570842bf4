"""Every system of a table beside people: the judges, the retrieval scores, and what fusions make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.judging.calibration import BEHIND_BEST, CalibrationMap
from qrelay.judging.domain import Likeness, likeness
from qrelay.judging.qualification.figures import calibrated, decisions, grading, ranking
from qrelay.judging.qualification.fitting import Predictions, apply_map, cross_validated, profiles, same_relevance
from qrelay.judging.qualification.table import Table, missing_count
from qrelay.stats.agreement import auc
from qrelay.stats.intervals import PairedTest, paired_bootstrap
from qrelay.types import BM25

FUSED = "fused"
FUSED_STAGES = "fused+stages"


@dataclass(frozen=True)
class System:
    """One system's figures: score [rows] ranks, `metrics` as in the report."""

    name: str
    inputs: tuple[str, ...]
    score: NDArray[np.float64]
    predictions: Predictions | None
    metrics: dict[str, Any]
    uses_stage_scores: bool
    judge_hashes: tuple[str, ...]
    """Whose labels in a ledger these are: the judge's, and a fitted map's; empty for a fusion by cross-validation."""


@dataclass(frozen=True)
class Evaluation:
    """All systems of a table, and the comparisons with the best retrieval score."""

    table: Table
    systems: Mapping[str, System]
    best_stage: str
    comparisons: list[dict[str, Any]] = field(default_factory=list)

    in_sample: tuple[str, ...] = ()
    """Systems whose map was fitted on these very pairs: their figures flatter them."""

    likenesses: Mapping[str, Likeness | None] = field(default_factory=dict)
    """Of each fitted map, how like its queries these are; None where that cannot be said."""

    @property
    def best_judge(self) -> str:
        """The judging system with the highest AUC; of several the first."""
        judging = [name for name in self.systems if name not in self.table.stages]
        return max(judging, key=lambda name: self.systems[name].metrics["auc"])


def recipes(table: Table, fusions: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """System name -> its inputs: every judge, every retrieval score, all judges fused, and `fusions`, by name; and
    the judges, how far each of their labels lies behind the query's best, and the retrieval scores but BM25's (whose
    scale is the index's own, so that a map of it holds for one index), all fused.

    Raises:
        InputError: a fusion names something that is no judge and no retrieval score, or has a name of one; or a judge
            has the name of a score.
    """
    judges, stages = tuple(table.labels), tuple(table.stages)
    taken = [name for name in judges if name in (*stages, FUSED, FUSED_STAGES)] + [
        name for name in fusions if name in (*judges, *stages)
    ]
    if taken:
        raise InputError(f"{', '.join(taken)}: a judge or a score has this name already, choose another")
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in (*judges, *stages)}
    if len(judges) > 1:
        found[FUSED] = judges
    portable = tuple(name for name in stages if name != BM25)
    if judges and portable:
        found[FUSED_STAGES] = with_stages(judges, portable)
    for name, inputs in fusions.items():
        unknown = [each for each in inputs if each.removesuffix(BEHIND_BEST) not in (*judges, *stages)]
        if unknown:
            raise InputError(
                f"the fusion {name} names {', '.join(unknown)}: there are {', '.join((*judges, *stages))}, each also "
                f"with {BEHIND_BEST} behind it"
            )
        found[name] = tuple(inputs)
    return found


def with_stages(judges: Sequence[str], stages: Sequence[str]) -> tuple[str, ...]:
    """The inputs of `fused+stages` for these judges and retrieval scores."""
    return (*judges, *(name + BEHIND_BEST for name in judges), *stages)


def evaluate(
    table: Table,
    fusions: Mapping[str, Sequence[str]],
    maps: Mapping[str, CalibrationMap] | None = None,
    priors: Sequence[Mapping[str, CalibrationMap]] = (),
) -> Evaluation:
    """Every system of the table. maps: system name -> the fitted map to apply; None: cross-validate. priors: maps of
    other collections, by name, of which each system takes those of its inputs (`priors_of`); one that finds none, and
    too few grades to do without, is left out.

    Raises:
        InputError: nothing is graded, too little to fit on, or a map of other judges or scores than the table's; as
            `recipes`.
    """
    if not len(table.graded):
        raise InputError("no annotated pair has a grade: fill in the column grade first")
    systems: dict[str, System] = {}
    for name, inputs in recipes(table, fusions).items():
        own = (table.judges[name],) if name in table.judges else ()
        if maps is None:
            before = priors_of(table, inputs, priors)
            try:
                said = cross_validated(table, inputs, before)
            except InputError:
                if before or not priors:
                    raise
                continue
            systems[name] = _system(table, name, inputs, said, own)
        elif name in maps:
            _refuse_other_inputs(table, name, maps[name])
            inputs = tuple(each.label for each in maps[name].inputs)
            by_map = (*own, judge_digest(maps[name].identity))
            systems[name] = _system(table, name, inputs, apply_map(maps[name], table), by_map)
        elif len(inputs) == 1:
            systems[name] = _system(table, name, inputs, None, own)
    stages = [name for name in table.stages if name in systems]
    best = max(stages, key=lambda name: systems[name].metrics["auc"], default="")
    in_sample = tuple(
        name for name in systems if maps and name in maps and maps[name].fitted_on.sha256 == table.sha256
    )
    likenesses = {name: like(maps[name], table) for name in systems if maps and name in maps}
    return Evaluation(table, systems, best, _comparisons(table, systems, best), in_sample, likenesses)


def fitted_on_all(evaluation: Evaluation, maps: Mapping[str, CalibrationMap]) -> Evaluation:
    """A cross-validated evaluation whose figures stand for these maps, each fitted on all of the table's grades as
    those of the folds were on all but one query's: the labels in a ledger are then the maps'."""
    systems = {
        name: replace(system, judge_hashes=(*system.judge_hashes, judge_digest(maps[name].identity)))
        for name, system in evaluation.systems.items()
        if name not in evaluation.table.stages
    }
    return replace(evaluation, systems={**evaluation.systems, **systems})


def like(fitted: CalibrationMap, table: Table) -> Likeness | None:
    """How like the map's queries the table's are; None where that cannot be said."""
    names = [each.label for each in fitted.inputs]
    return likeness(fitted.domain, names, profiles(table, names))


def priors_of(
    table: Table, names: Sequence[str], priors: Sequence[Mapping[str, CalibrationMap]]
) -> list[CalibrationMap]:
    """The map of these inputs from each file that has one to which relevant means the same."""
    inputs = table.inputs(names)
    found = (next((each for each in maps.values() if each.inputs == inputs), None) for maps in priors)
    return [each for each in found if each is not None and same_relevance(each, table)]


def _refuse_other_inputs(table: Table, name: str, fitted: CalibrationMap) -> None:
    """Raises InputError where the map was fitted on a judge or score that is not in the table."""
    here = {**table.judges, **dict.fromkeys(table.stages, "")}
    lacking = [each for each in fitted.inputs if here.get(each.name) != each.judge_hash]
    if lacking:
        wanted, there = (
            ", ".join(f"{one} ({hashed[:12]})" if hashed else one for one, hashed in named)
            for named in ([(each.name, each.judge_hash) for each in lacking], here.items())
        )
        raise InputError(
            f"the map {name} was fitted on {wanted}; here are {there}: a judge's model, prompt, scale and decoding "
            "must be the same; fit a new map with `qrelay judge calibrate`"
        )


def _system(
    table: Table, name: str, inputs: tuple[str, ...], predictions: Predictions | None, judge_hashes: tuple[str, ...]
) -> System:
    single = len(inputs) == 1
    score = predictions.ranking if predictions and not single else table.column(inputs[0])
    bases = dict.fromkeys(each.removesuffix(BEHIND_BEST) for each in inputs)
    judged = [each for each in bases if each in table.labels]
    metrics = _metrics(table, name, score, predictions, own=name in table.labels)
    metrics |= {
        "inputs": list(inputs),
        "uses_stage_scores": any(each in table.stages for each in bases),
        "missing": max((missing_count(table.labels[each]) for each in judged), default=0),
        "tokens": sum(table.cost(each) for each in judged),
    }
    return System(name, inputs, score, predictions, metrics, metrics["uses_stage_scores"], judge_hashes)


def _metrics(
    table: Table, name: str, score: NDArray[np.float64], said: Predictions | None, *, own: bool
) -> dict[str, Any]:
    """Figures over the graded rows that have a score. Without a map a judge's own decisions count."""
    rows = table.graded[~np.isnan(score[table.graded])]
    relevant, queries = table.relevant[rows], table.queries[rows]
    found = ranking(relevant, score[rows], queries)
    found |= calibrated(relevant, table.p_relevant(name)[rows] if own else None, said.p[rows] if said else None)
    if said:
        found |= decisions(relevant, said.relevant[rows], queries) | grading(table.grades[rows], said.grade[rows])
    elif own:
        found |= decisions(relevant, table.own_decision(name)[rows], queries)
    return {**dict.fromkeys(("kappa_binary", "kappa_graded", "kappa_four_point", "alpha")), **found}


def _comparisons(table: Table, systems: Mapping[str, System], best: str) -> list[dict[str, Any]]:
    """Each judging system against the best retrieval score: AUC, paired over queries."""
    if not best:
        return []
    found = []
    for name, system in systems.items():
        if name in table.stages:
            continue
        test = _paired(table, system.score, systems[best].score)
        found.append(
            {"a": name, "b": best, "difference": test.difference, "ci": [test.low, test.high], "p": test.p_value}
        )
    return found


def _paired(table: Table, one: NDArray[np.float64], other: NDArray[np.float64]) -> PairedTest:
    """AUC of one against the other, on the graded rows that both score."""
    rows = table.graded[~np.isnan(one[table.graded]) & ~np.isnan(other[table.graded])]
    y, a, b = table.relevant[rows], one[rows], other[rows]
    return paired_bootstrap(lambda i: auc(y[i], a[i]), lambda i: auc(y[i], b[i]), table.queries[rows])
