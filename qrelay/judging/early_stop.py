"""Early stopping inside a query: pairs that cannot change what is exported are left out. Off unless asked for.

A query's passages are judged in chunks, best first by the current model's rank. It stops once there are enough
positives, and either enough hard negatives or no passage left that could be one, by mining's own rules of ranks
(`qrelay/ranks.py`). What is left out is missing, reason skipped, and counted.

What it costs: qrels are shallower, later positives are not found, and an export with other ranks or thresholds than
these settings' may lack negatives. `qrelay judge rejudge --where missing=skipped` judges the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qrelay.errors import ConfigError, QrelayError
from qrelay.identity import digest, judge_digest, judgment_key
from qrelay.judging.core import JudgeCore
from qrelay.judging.ensemble import Ensemble
from qrelay.judging.escalation import marked_only
from qrelay.judging.panel import Panel
from qrelay.judging.settings import EarlyStopSettings, JudgeSettings
from qrelay.ranks import current_model, rank_of, why_hard
from qrelay.runtime import telemetry
from qrelay.runtime.stage import Info
from qrelay.scales import Scale
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment, Missing


@dataclass(slots=True)
class _Progress:
    """One set on its way. waiting: what is not judged yet, best first."""

    asked: CandidateSet
    system: str
    waiting: list[Candidate]
    judgments: list[Judgment] = field(default_factory=list)
    positives: int = 0
    negatives: int = 0
    error: QrelayError | None = None


class EarlyStop:
    """See the module. The last judgment of a passage is the one that counts: a core's combined label, where it has
    one."""

    def __init__(self, core: JudgeCore, settings: EarlyStopSettings) -> None:
        """`core` gives one label a pair that counts."""
        self._core = core
        self._settings = settings

    async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
        """Each set, its judgments chunk by chunk and then the skipped ones; the sets' chunks go side by side."""
        started = [_started(each) for each in sets]
        while running := [each for each in started if each.waiting and not each.error and not self._enough(each)]:
            chunks = [self._next_chunk(each) for each in running]
            answers = await self._core.judge(
                [marked_only(each.asked, _ids(chunk)) for each, chunk in zip(running, chunks, strict=True)]
            )
            for each, chunk, answer in zip(running, chunks, answers, strict=True):
                self._take(each, chunk, answer)
        return [each.error or self._finished(each) for each in started]

    def _next_chunk(self, each: _Progress) -> list[Candidate]:
        chunk, each.waiting = each.waiting[: self._settings.chunk], each.waiting[self._settings.chunk :]
        return chunk

    def _take(self, each: _Progress, chunk: Sequence[Candidate], answer: JudgedSet | QrelayError) -> None:
        if isinstance(answer, QrelayError):
            each.error = answer
            return
        each.judgments += answer.judgments
        counting = {judgment.passage_id: judgment for judgment in answer.judgments}
        for candidate in chunk:
            judgment = counting.get(candidate.passage.passage_id)
            if judgment is None or not isinstance(judgment.outcome, Graded):
                continue
            if Scale.halved(judgment.judge.scale).relevant(judgment.outcome.grade):
                each.positives += 1
            elif judgment.outcome.p_relevant < self._settings.negative_threshold:
                each.negatives += self._may_be_hard(candidate, each.system)

    def _enough(self, each: _Progress) -> bool:
        if each.positives < self._settings.positives:
            return False
        hard_left = any(self._may_be_hard(candidate, each.system) for candidate in each.waiting)
        return each.negatives >= self._settings.negatives or not hard_left

    def _may_be_hard(self, candidate: Candidate, system: str) -> bool:
        return bool(why_hard(candidate, system, self._settings.negative_rank, self._settings.disagreement_rank))

    def _finished(self, each: _Progress) -> JudgedSet:
        why = (
            f"the query has {each.positives} relevant passages and {each.negatives} hard negatives (judge.early_stop)"
        )
        skipped = [_skipped(each, candidate, why) for candidate in each.waiting]
        telemetry.SKIPPED_PAIRS.inc(len(skipped))
        return JudgedSet(each.asked, (*each.judgments, *skipped))

    def info(self) -> Info:
        """The core's, and that it stops early."""
        info, limits = self._core.info(), self._settings
        shown = f"after {limits.positives} relevant passages and {limits.negatives} hard negatives"
        return Info(info.models, {**info.details, "early stop": shown})

    def close(self) -> None:
        """Close the core."""
        self._core.close()


def stopping_early(settings: JudgeSettings, panel: Panel, core: JudgeCore) -> EarlyStop:
    """The core, stopping early inside each query. panel: its judges.

    Raises:
        ConfigError: a judge that needs whole lists, or several judges without one label that counts.
    """
    listwise = [name for name, judge in panel.judges.items() if judge.strategy.spec.listwise]
    if listwise:
        raise ConfigError(
            f"judge.early_stop judges a query in chunks, but {', '.join(listwise)} needs its whole list: switch one "
            "of the two off"
        )
    if isinstance(core, Ensemble) and core.calibration.listwise:
        raise ConfigError(
            "judge.early_stop judges a query in chunks, but judge.calibration reads how far a label lies behind the "
            "query's best: choose a map without /best inputs, or switch one of the two off"
        )
    if len(panel.judges) > 1 and core is panel:
        raise ConfigError(
            "judge.early_stop needs one label a pair that counts, there are several judges: set judge.calibration or "
            "judge.cascade, or keep one judge"
        )
    return EarlyStop(core, settings.early_stop)


def _started(asked: CandidateSet) -> _Progress:
    marked = [each for each in asked.candidates if each.sampled] or list(asked.candidates)
    system = current_model(asked.candidates)
    return _Progress(asked, system, sorted(marked, key=lambda candidate: rank_of(candidate, system)))


def _ids(chunk: Sequence[Candidate]) -> set[str]:
    return {candidate.passage.passage_id for candidate in chunk}


def _skipped(each: _Progress, candidate: Candidate, why: str) -> Judgment:
    """Under a key of its own: a label of the pair, measured later, is another thing."""
    last, passage = each.judgments[-1], candidate.passage
    key = judgment_key(each.asked.query.text, passage.title, passage.text, judge_digest(last.judge))
    return Judgment(passage.passage_id, digest("skipped", key), Missing("skipped", why), last.judge, last.judged_at)
