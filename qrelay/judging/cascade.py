"""A small core answers where it is sure, a large judge the rest.

    small judges -> fused, calibrated P(relevant) -> sure? ── yes ─► the small label
                                                      └─ no, or audited ─► large judge ─► the large label

Sure: a pair is relevant where P reaches its map's threshold, so the small side's chance of being wrong is 1 - P where
it says relevant and P where it does not; it answers while that is at most `max_error`. Of its sure answers a share
`audit`, chosen by a hash of the pair's key and so always the same ones, goes up too and gets the large label. How
often the two disagree is watched (drift.py); while more of them do than was promised, `max_error` is scaled down.
`budget_share` caps what goes up: audited pairs first, then the least certain. A pair whose small label failed in a
way that may heal stays down, missing: the queue asks again.

The invariant "same identity, same label": which side answers depends on what else was seen (drift, budget), so the
side, and whose label it passed on, is part of a label's key. A pair that is delivered again may get the other side's
label, under another key; in the ledger the first commit of a query counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qrelay.errors import ConfigError, QrelayError
from qrelay.identity import digest, judge_digest, judgment_key
from qrelay.judging.cache import NoCache
from qrelay.judging.calibration import CalibrationMap, load_map
from qrelay.judging.drift import Watch
from qrelay.judging.ensemble import ensemble_labels, names_of
from qrelay.judging.escalation import chance_wrong, in_audit, marked_only
from qrelay.judging.failures import transient_missing
from qrelay.judging.judge import Judge
from qrelay.judging.panel import Panel
from qrelay.judging.settings import CascadeSettings, JudgeSettings
from qrelay.judging.strategies.base import shown
from qrelay.runtime import telemetry
from qrelay.runtime.stage import Info
from qrelay.types import (
    CASCADE,
    FUSED,
    CandidateSet,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Missing,
    retrieval_scores,
    with_reason,
)

_SMALL, _LARGE = "small", "large"


@dataclass(slots=True)
class _Pair:
    """One pair on its way. label: the small side's; error: its chance of being wrong, 1 where it is missing."""

    label: Judgment
    error: float
    audited: bool
    stays: bool
    up: bool = False


@dataclass(slots=True)
class _Counts:
    """Of this run: pairs seen, sent up, kept down by the budget; labels made; prompt tokens of either side."""

    pairs: int = 0
    escalated: int = 0
    withheld: int = 0
    labels: int = 0
    tokens_small: int = 0
    tokens_large: int = 0


class Cascade:
    """See the module. Use from one event loop."""

    def __init__(
        self,
        small: Panel,
        small_map: CalibrationMap,
        large: Judge,
        large_map: CalibrationMap | None,
        settings: CascadeSettings,
        *,
        close: Callable[[], None] | None = None,
    ) -> None:
        """settings.order: the names of both sides. close: what frees the judges, where it is not both themselves.

        Raises:
            ConfigError: a map of other judges, scales that differ, or a large judge that needs whole lists.
        """
        small_name, large_name = settings.order
        self._small, self._small_map = small, small_map
        self._large, self._large_map = large, large_map
        self._settings = settings
        self._close = close
        self._whole = Panel({**small.judges, large_name: large}, NoCache())
        self._small_names = names_of(small, small_map)
        self._large_names = names_of(self._whole, large_map) if large_map else {}
        self._refuse_unfit(large_name)
        self.identity = self._identity_of(small_name, large_name)
        self._hash = judge_digest(self.identity)
        self._watch = Watch(settings.window)
        self._counts = _Counts()

    def _refuse_unfit(self, large_name: str) -> None:
        spec, scale = self._large.strategy.spec, self._small_map.scale
        if spec.listwise:
            raise ConfigError(
                f"the expensive judge {large_name} judges whole lists ({spec.name}), but a cascade asks it about "
                "single pairs: name another one second in cascade.order"
            )
        if self._small_map.listwise or (self._large_map and self._large_map.listwise):
            raise ConfigError(
                "a map of the cascade reads how far a label lies behind the query's best, but the expensive judge "
                "sees only part of a query's passages: fit maps without /best inputs (`--fuse NAME=…`)"
            )
        if self._large_map is None and spec.scale.name != scale:
            raise ConfigError(
                f"the small side's labels are on the scale {scale}, the large judge's on {spec.scale.name}: fit a "
                f"map that reads {large_name} with `qrelay judge calibrate` and name it in judge.calibration"
            )
        if self._large_map and self._large_map.scale != scale:
            raise ConfigError(
                "cascade.calibration and judge.calibration have different scales: fit both on one set of pairs"
            )
        if self._large_map and not {i.judge_hash for i in self._large_map.inputs} & set(self._large.hashes):
            raise ConfigError(f"judge.calibration does not read the large judge {large_name}: name a map that does")

    def _identity_of(self, small_name: str, large_name: str) -> JudgeIdentity:
        large = self._large_map.hash if self._large_map else self._large.hashes[0]
        whole = digest(self._small_map.hash, large, self._large.hashes[0], repr(self._settings.max_error))
        return JudgeIdentity(
            model="cascade",
            revision=whole[:16],
            quantisation="none",
            prompt_hash=whole,
            strategy=CASCADE,
            scale=self._small_map.scale,
            decoding=f"small={small_name};large={large_name};{retrieval_scores(self._leans)}",
        )

    @property
    def _leans(self) -> bool:
        return any(each.uses_stage_scores for each in (self._small_map, self._large_map) if each)

    async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
        """Each set with the judgments of both sides, and after them the cascade's own in candidate order."""
        below = await self._small.judge(sets)
        pairs = [self._pairs(each) if isinstance(each, JudgedSet) else [] for each in below]
        self._send_up([pair for each in pairs for pair in each])
        above = await self._ask_large(below, pairs)
        return [self._answer(*each) for each in zip(below, pairs, above, strict=True)]

    def _pairs(self, judged: JudgedSet) -> list[_Pair]:
        labels = ensemble_labels(
            self._small_map, judged.candidate_set, judged.judgments, self._small_names,
            self._small.metadata(self._small_names),
        )  # fmt: skip
        return [self._pair(judged, label) for label in labels]

    def _pair(self, judged: JudgedSet, label: Judgment) -> _Pair:
        if not isinstance(label.outcome, Graded):
            return _Pair(label, 1.0, audited=False, stays=transient_missing(replace(judged, judgments=(label,))))
        error = chance_wrong(label.outcome.p_relevant, self._small_says(label.outcome))
        sure = error <= self._settings.max_error
        return _Pair(label, error, audited=sure and in_audit(label.judgment_key, self._settings.audit), stays=False)

    def _send_up(self, pairs: Sequence[_Pair]) -> None:
        """Mark what goes up, within the share of this run's pairs that may."""
        limit = self._settings.max_error * self._watch.audit().scale
        wanted = [pair for pair in pairs if pair.audited or (pair.error > limit and not pair.stays)]
        wanted.sort(key=lambda pair: (not pair.audited, -pair.error))
        counts = self._counts
        counts.pairs += len(pairs)
        room = max(0, int(self._settings.budget_share * counts.pairs) - counts.escalated)
        for pair in wanted[:room]:
            pair.up = True
        counts.escalated += min(room, len(wanted))
        counts.withheld += max(0, len(wanted) - room)
        telemetry.CASCADE_PAIRS.inc(len(pairs))
        telemetry.CASCADE_ESCALATIONS.inc(min(room, len(wanted)))

    async def _ask_large(
        self, below: Sequence[JudgedSet | QrelayError], pairs: Sequence[Sequence[_Pair]]
    ) -> list[JudgedSet | QrelayError | None]:
        """The large judge's answer about what goes up of each set; None where nothing does."""
        asked = {}
        for number, (judged, each) in enumerate(zip(below, pairs, strict=True)):
            chosen = {pair.label.passage_id for pair in each if pair.up}
            if chosen and isinstance(judged, JudgedSet):
                asked[number] = marked_only(judged.candidate_set, chosen)
        answers = dict(zip(asked, await self._large.judge(list(asked.values())), strict=True)) if asked else {}
        return [answers.get(number) for number in range(len(below))]

    def _answer(
        self, below: JudgedSet | QrelayError, pairs: Sequence[_Pair], above: JudgedSet | QrelayError | None
    ) -> JudgedSet | QrelayError:
        if isinstance(below, QrelayError) or isinstance(above, QrelayError):
            return below if isinstance(below, QrelayError) else above  # type: ignore[return-value]
        judgments = (*below.judgments, *(above.judgments if above else ()))
        large = self._large_labels(below.candidate_set, judgments, above) if above else {}
        for pair in pairs:
            if pair.up and pair.audited:
                self._observe(pair, large[pair.label.passage_id])
        labels = [self._label(below.candidate_set, pair, large.get(pair.label.passage_id)) for pair in pairs]
        self._counts.labels += sum(isinstance(each.outcome, Graded) for each in labels)
        self._counts.tokens_small += sum(each.prompt_tokens for each in below.judgments)
        self._counts.tokens_large += sum(each.prompt_tokens for each in above.judgments) if above else 0
        return replace(below, judgments=(*judgments, *labels))

    def _large_labels(
        self, asked: CandidateSet, judgments: Sequence[Judgment], above: JudgedSet
    ) -> dict[str, Judgment]:
        """passage_id -> the large side's label: its map's, and where that lacks an input the judge's own."""
        own = {each.passage_id: each for each in above.judgments}
        if self._large_map is None:
            return own
        used = [each for each in judgments if each.passage_id in own]
        metadata = self._whole.metadata(self._large_names)
        labels = ensemble_labels(self._large_map, asked, used, self._large_names, metadata)
        fused = {each.passage_id: each for each in labels}
        same_scale = self._large.strategy.spec.scale.name == self.identity.scale
        return {
            passage_id: own[passage_id] if same_scale and isinstance(each.outcome, Missing) else each
            for passage_id, each in fused.items()
        }

    def _label(self, asked: CandidateSet, pair: _Pair, large: Judgment | None) -> Judgment:
        source, side = (large, _LARGE) if pair.up and large else (pair.label, _SMALL)
        passage = next(c.passage for c in asked.candidates if c.passage.passage_id == source.passage_id)
        index = [asked.index_version] if self._leans else []
        read = digest(asked.query.text, f"side={side}", judge_digest(source.judge), *index)
        metadata = self._whole.metadata({*self._small_names, *self._large_names, *self._large.hashes})
        return replace(
            source,
            judgment_key=judgment_key(
                read, passage.title, passage.text, self._hash, shown(metadata, passage.metadata)
            ),
            judge=self.identity,
            raw_reply=with_reason(
                f"side={side} error={pair.error:.4f}{' audited' if pair.audited else ''}", source.reason
            ),
            prompt_tokens=0,
        )

    def _small_says(self, outcome: Graded) -> bool:
        return outcome.p_relevant >= self._small_map.threshold

    def _large_says(self, outcome: Graded) -> bool:
        mapped = self._large_map is not None and outcome.calibration == self._large_map.hash
        return outcome.p_relevant >= (self._large_map.threshold if self._large_map and mapped else 0.5)

    def _observe(self, pair: _Pair, large: Judgment) -> None:
        small = pair.label.outcome
        if not isinstance(small, Graded) or not isinstance(large.outcome, Graded):
            return
        wrong = self._small_says(small) != self._large_says(large.outcome)
        self._watch.add(pair.label.judgment_key, pair.error, wrong)

    def report(self) -> dict[str, Any]:
        """This run in numbers: pairs and what went up, prompt tokens a label, and what the audit saw."""
        counts, audit = self._counts, self._watch.audit()
        return {
            "pairs": counts.pairs,
            "escalated": counts.escalated,
            "share_escalated": counts.escalated / counts.pairs if counts.pairs else 0.0,
            "kept_down_by_budget": counts.withheld,
            "labels": counts.labels,
            "tokens_small": counts.tokens_small,
            "tokens_large": counts.tokens_large,
            "tokens_a_label": (counts.tokens_small + counts.tokens_large) / counts.labels if counts.labels else 0.0,
            "max_error": self._settings.max_error * audit.scale,
            **audit.report(),
        }

    def info(self) -> Info:
        """The judges', the maps', and this run's report."""
        whole = self._whole.info()
        maps = {"cascade: small map": self._small_map.hash[:16]}
        if self._large_map:
            maps["cascade: large map"] = self._large_map.hash[:16]
        shown = {f"cascade: {name}": str(value) for name, value in self.report().items()}
        leans = {"leans on retrieval scores": "yes" if self._leans else "no"}
        return Info({**whole.models, "judge": self.identity.fingerprint}, {**whole.details, **maps, **leans, **shown})

    def close(self) -> None:
        """Free the judges."""
        if self._close:
            self._close()
            return
        self._large.close()
        self._small.close()


def load_cascade(settings: JudgeSettings, panel: Panel) -> Cascade:
    """The cascade that the settings ask for, of the judges of `panel`; closing it closes the panel.

    Raises:
        ConfigError: names in cascade.order that are no judges, judges left over, no map, or what `Cascade` refuses.
    """
    small, large = settings.cascade.order
    known = ", ".join(panel.judges)
    if large not in panel.judges or small not in (FUSED, *panel.judges):
        raise ConfigError(
            f"cascade.order is {small}, {large}, but judge.judges has {known} (and {FUSED}, for the first)"
        )
    members = {name: judge for name, judge in panel.judges.items() if name != large and small in (FUSED, name)}
    idle = panel.judges.keys() - members.keys() - {large}
    if idle:
        raise ConfigError(
            f"cascade.order leaves out {', '.join(sorted(idle))}: take it out of judge.judges, or put {FUSED} first"
        )
    if not members:
        raise ConfigError(f"cascade.order needs a small judge beside {large}: add one to judge.judges")
    small_map = load_map(settings.cascade.calibration)
    large_map = load_map(settings.calibration) if settings.calibration else None
    subset = Panel(members, NoCache())
    return Cascade(subset, small_map, panel.judges[large], large_map, settings.cascade, close=panel.close)
