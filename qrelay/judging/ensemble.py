"""An ensemble: a panel, and one more label a pair, its judges' labels calibrated into P(relevant)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qrelay.errors import ConfigError, QrelayError
from qrelay.identity import digest, judge_digest, judgment_key
from qrelay.judging.calibration import CalibrationMap, Features
from qrelay.judging.domain import Watch
from qrelay.judging.panel import Panel
from qrelay.judging.strategies.base import shown
from qrelay.runtime.stage import Info
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment, Missing


class Ensemble:
    """The panel's labels, then the fused one of each pair. Nothing is asked and nothing cached for it: it is a
    function of labels that are."""

    def __init__(self, panel: Panel, calibration: CalibrationMap) -> None:
        """Raises ConfigError where the map was fitted on other judges than the panel's."""
        self._panel = panel
        self.calibration = calibration
        self._names = names_of(panel, calibration)
        self._watch = Watch(calibration.domain, [each.label for each in calibration.inputs])

    async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
        """Each set with the panel's judgments, and after them the fused ones in candidate order."""
        return [
            answer if isinstance(answer, QrelayError) else self._with_ensemble(answer)
            for answer in await self._panel.judge(sets)
        ]

    def _with_ensemble(self, judged: JudgedSet) -> JudgedSet:
        labels = ensemble_labels(
            self.calibration,
            judged.candidate_set,
            judged.judgments,
            self._names,
            self._panel.metadata(self._names),
            self._watch,
        )
        return replace(judged, judgments=(*judged.judgments, *labels))

    def info(self) -> Info:
        """The panel's, and what the map reads and was fitted on."""
        panel, fitted = self._panel.info(), self.calibration.fitted_on
        inputs = ", ".join(each.label for each in self.calibration.inputs)
        return Info(
            models={**panel.models, "judge": self.calibration.identity.fingerprint},
            details={
                **panel.details,
                "calibration": f"{self.calibration.hash[:16]} of {inputs}; fitted on {fitted.pairs} pairs of "
                f"{fitted.queries} queries",
                "leans on retrieval scores": "yes" if self.calibration.uses_stage_scores else "no",
                **self._watch.details(),
            },
        )

    def close(self) -> None:
        """Close the panel."""
        self._panel.close()


def names_of(panel: Panel, calibration: CalibrationMap) -> dict[str, str]:
    """Judge hash -> the name under which the map knows the judge.

    Raises:
        ConfigError: the map needs a judge that the panel has not, or has with another identity.
    """
    hashes = {hashed: name for name, judge in panel.judges.items() for hashed in judge.hashes}
    needed = {each.judge_hash: each.name for each in calibration.inputs if each.kind == "judge"}
    lacking = {hashed: name for hashed, name in needed.items() if hashed not in hashes}
    if lacking:
        raise ConfigError(
            f"the calibration was fitted on the judges {_shown(lacking)}, the configured ones are {_shown(hashes)}: "
            "model, prompt, scale and decoding must be the same; fit a new one with `qrelay judge calibrate`"
        )
    return needed


def _shown(judges: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({hashed[:12]})" for hashed, name in judges.items())


def ensemble_labels(
    calibration: CalibrationMap,
    candidate_set: CandidateSet,
    judgments: Sequence[Judgment],
    names: Mapping[str, str],
    metadata: Mapping[str, str],
    watch: Watch | None = None,
) -> list[Judgment]:
    """One fused judgment a passage that any judge judged, in the order of its first judgment. metadata: what its
    judges read of it, as `Panel.metadata`; watch: is told what the map read."""
    candidates = {candidate.passage.passage_id: candidate for candidate in candidate_set.candidates}
    by_passage: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        by_passage.setdefault(judgment.passage_id, []).append(judgment)
    judged = [candidates[passage_id] for passage_id in by_passage]
    outcomes = [_outcomes(given, names) for given in by_passage.values()]
    features = calibration.features(list(zip(outcomes, judged, strict=True)))
    if watch:
        watch.add(candidate_set.query.collection, [row for row in features if not isinstance(row, Missing)])
    keys = _keys(calibration, candidate_set, judged, features, metadata)
    return [
        _fused(calibration, row, given, key)
        for row, given, key in zip(features, by_passage.values(), keys, strict=True)
    ]


def _outcomes(given: Sequence[Judgment], names: Mapping[str, str]) -> dict[str, Graded | Missing]:
    return {names[hashed]: each.outcome for each in given if (hashed := judge_digest(each.judge)) in names}


def _fused(
    calibration: CalibrationMap, features: Features | Missing, given: Sequence[Judgment], key: str
) -> Judgment:
    outcome: Graded | Missing
    if isinstance(features, Missing):
        outcome, said = features, ""
    else:
        outcome = calibration.graded(calibration.probability([features])[0])
        said = " ".join(f"{i.label}={x:.4f}" for i, x in zip(calibration.inputs, features, strict=True))
    return Judgment(
        passage_id=given[0].passage_id,
        judgment_key=key,
        outcome=outcome,
        judge=calibration.identity,
        judged_at=max(each.judged_at for each in given),
        cached=all(each.cached for each in given),
        raw_reply=said,
    )


def _keys(
    calibration: CalibrationMap,
    candidate_set: CandidateSet,
    judged: Sequence[Candidate],
    features: Sequence[Features | Missing],
    metadata: Mapping[str, str],
) -> list[str]:
    """A key a passage. A passage that lacks a label is not in the list that the others' labels depend on."""
    judge_hash = judge_digest(calibration.identity)
    known = [one for one, row in zip(judged, features, strict=True) if not isinstance(row, Missing)]
    whole, read = (_read(calibration, candidate_set, each, metadata) for each in (judged, known))
    return [
        judgment_key(
            whole if isinstance(row, Missing) else read, one.passage.title, one.passage.text, judge_hash,
            shown(metadata, one.passage.metadata),
        )
        for one, row in zip(judged, features, strict=True)
    ]  # fmt: skip


def _read(
    calibration: CalibrationMap,
    candidate_set: CandidateSet,
    judged: Sequence[Candidate],
    metadata: Mapping[str, str],
) -> str:
    """What the keys say of the query: with scores of an index, another index makes another label; so does another
    list where a label depends on it."""
    beside = [candidate_set.index_version] if calibration.uses_stage_scores else []
    if calibration.listwise:
        passages = [each.passage for each in judged]
        beside += sorted(digest(each.title, each.text, *shown(metadata, each.metadata)) for each in passages)
    return digest(candidate_set.query.text, *beside) if beside else candidate_set.query.text
