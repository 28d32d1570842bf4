"""A panel's labels fused into one calibrated label a pair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qrelay.errors import BackendUnavailable, ConfigError, InvalidQuery, QrelayError
from qrelay.judging.cache import NoCache
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.calibration import CalibrationMap, FittedOn, MapInput, raw_score, save_maps
from qrelay.judging.domain import Domain, profile
from qrelay.judging.ensemble import Ensemble
from qrelay.judging.judge import Judge
from qrelay.judging.load import load_core
from qrelay.judging.panel import Panel
from qrelay.judging.settings import JudgeSettings, MemberSettings
from qrelay.judging.strategies import make_strategy
from qrelay.llm.exchange import Prompt, TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.stats.calibration import Isotonic, Logistic
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment, Missing, Score
from tests.judging.samples import COOKING, COPYTREE, LOCK, NOW, candidate_set

TEXTS = (COPYTREE, LOCK, COOKING)


class LosingBackend(FakeBackend):
    """The double, but it always fails on passages that hold `lost`."""

    def __init__(self, lost: str = "") -> None:
        super().__init__()
        self.lost = lost

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        answers = await super().score(prompts)
        return [
            BackendUnavailable("told to fail") if self.lost and self.lost in prompt.passage else answer
            for prompt, answer in zip(prompts, answers, strict=True)
        ]


def panel_of(backend: FakeBackend | None = None, cache: SqlCache | None = None) -> Panel:
    """Two judges on one engine: graded 0 to 3, and query likelihood."""
    engine, store = backend or FakeBackend(), cache or NoCache()
    return Panel(
        {
            name: Judge(engine, make_strategy(strategy, "0-3"), store, clock=lambda: NOW)
            for name, strategy in (("wide", "graded"), ("likely", "query_likelihood"))
        },
        store,
    )


def map_of(panel: Panel, *names: str) -> CalibrationMap:
    """A logistic map of these inputs, every weight 1, to grades 0 to 3, of which 2 is relevant."""
    inputs = []
    for name in names:
        base, behind = name.removesuffix("/best"), name.endswith("/best")
        judge = panel.judges.get(base)
        inputs.append(MapInput("judge" if judge else "stage", base, judge.hashes[0] if judge else "", behind))
    n = len(inputs)
    model = Logistic((1.0,) * n, (1.0,) * n, (1.0,) * n, 0.0)
    cumulative = tuple(Isotonic((0.0, 1.0), ends) for ends in ((0.1, 0.95), (0.05, 0.9), (0.02, 0.6)))
    fitted = FittedOn("0" * 64, 100, 10, 40, relevant_from=2)
    return CalibrationMap(tuple(inputs), model, "0-3", 0, (0.2, 0.45, 0.8), cumulative, 0.45, fitted, {})


def with_scores(each: CandidateSet, *dense: float | None) -> CandidateSet:
    """The set with these dense scores, none where None."""
    scored = [
        c if s is None else Candidate(c.passage, (Score("dense", s, 0),), c.sampled)
        for c, s in zip(each.candidates, dense, strict=True)
    ]
    return replace(each, candidates=tuple(scored))


async def fused(core: Ensemble, each: CandidateSet) -> list[Judgment]:
    """The fused labels of one set."""
    (answer,) = await core.judge([each])
    assert isinstance(answer, JudgedSet), answer
    return [label for label in answer.judgments if label.judge.strategy == "fused"]


def core_of(*names: str, backend: FakeBackend | None = None) -> Ensemble:
    panel = panel_of(backend)
    return Ensemble(panel, map_of(panel, *names))


async def test_fused_labels_stand_behind_the_panels_in_candidate_order() -> None:
    core = core_of("wide", "likely")
    (answer,) = await core.judge([candidate_set(*TEXTS)])
    assert isinstance(answer, JudgedSet)
    assert [each.judge.strategy for each in answer.judgments] == [
        *["graded"] * 3,
        *["query_likelihood"] * 3,
        *["fused"] * 3,
    ]
    assert [each.passage_id for each in answer.judgments[6:]] == ["d#0", "d#1", "d#2"]
    assert len({each.judgment_key for each in answer.judgments}) == 9


async def test_the_fused_p_is_the_maps_of_the_judges_own_labels() -> None:
    core = core_of("wide", "likely")
    (answer,) = await core.judge([candidate_set(*TEXTS)])
    assert isinstance(answer, JudgedSet)
    wide, likely, labels = (answer.judgments[start : start + 3] for start in (0, 3, 6))
    for one, other, label in zip(wide, likely, labels, strict=True):
        assert isinstance(one.outcome, Graded)
        assert isinstance(other.outcome, Graded)
        assert isinstance(label.outcome, Graded)
        weighed = raw_score(one.outcome) - 1 + raw_score(other.outcome) - 1
        assert label.outcome.p_relevant == pytest.approx(1 / (1 + math.exp(-weighed)))
        assert label.outcome.calibration == core.calibration.hash
        assert math.fsum(label.outcome.probabilities) == pytest.approx(1.0)
        assert label.raw_reply.startswith("wide=")
    assert labels[0].outcome.p_relevant > labels[2].outcome.p_relevant  # type: ignore[union-attr]


async def test_fusing_adds_no_question_to_the_panels() -> None:
    alone, beside = FakeBackend(), FakeBackend()
    await panel_of(alone).judge([candidate_set(*TEXTS)])
    labels = await fused(core_of("wide", "likely", backend=beside), candidate_set(*TEXTS))
    assert beside.asked == alone.asked > 0
    assert all(label.prompt_tokens == 0 for label in labels)


async def test_a_fused_label_counts_as_cached_when_all_that_it_is_made_of_is(tmp_path: Path) -> None:
    cache = SqlCache(str(tmp_path / "cache.sqlite"))
    panel = panel_of(cache=cache)
    core = Ensemble(panel, map_of(panel, "wide", "likely"))
    fresh, again = await fused(core, candidate_set(*TEXTS)), await fused(core, candidate_set(*TEXTS))
    core.close()
    assert [each.cached for each in (*fresh, *again)] == [False] * 3 + [True] * 3
    assert [each.outcome for each in fresh] == [each.outcome for each in again]


async def test_a_label_that_is_missing_makes_the_fused_one_missing_for_the_same_reason() -> None:
    first, lost, last = await fused(
        core_of("wide", "likely", backend=LosingBackend("primitive")), candidate_set(*TEXTS)
    )
    assert isinstance(lost.outcome, Missing)
    assert lost.outcome.reason == "unavailable"
    assert isinstance(first.outcome, Graded)
    assert isinstance(last.outcome, Graded)


async def test_what_a_map_does_not_read_may_be_missing() -> None:
    labels = await fused(core_of("likely", backend=LosingBackend("primitive")), candidate_set(*TEXTS))
    assert all(isinstance(each.outcome, Graded) for each in labels)


async def test_a_score_that_a_candidate_lacks_counts_as_the_mean() -> None:
    core = core_of("wide", "dense")
    asked = candidate_set(COPYTREE, COPYTREE, COPYTREE)
    lacking, mean, better = await fused(core, with_scores(asked, None, 1.0, 3.0))
    ps = [each.outcome.p_relevant for each in (lacking, mean, better)]  # type: ignore[union-attr]
    assert ps[0] == pytest.approx(ps[1])
    assert ps[2] > ps[1]


async def keys(core: Ensemble, each: CandidateSet) -> list[str]:
    return [label.judgment_key for label in await fused(core, each)]


@pytest.mark.parametrize(("names", "depends"), [(("wide", "likely"), False), (("wide", "dense"), True)])
async def test_keys_depend_on_the_index_only_where_labels_lean_on_its_scores(
    names: tuple[str, ...], depends: bool
) -> None:
    core, asked = core_of(*names), candidate_set(*TEXTS)
    assert core.calibration.identity.decoding.endswith(f"stage-scores={'yes' if depends else 'no'}")
    here = await keys(core, asked)
    assert here == await keys(core, asked)
    there = await keys(core, replace(asked, index_version="v2"))
    assert all((a != b) == depends for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize(("names", "depends"), [(("wide",), False), (("wide", "wide/best"), True)])
async def test_keys_depend_on_the_list_only_where_labels_do(names: tuple[str, ...], depends: bool) -> None:
    core = core_of(*names)
    short, long = await keys(core, candidate_set(*TEXTS[1:])), await keys(core, candidate_set(*TEXTS))
    assert (short != long[1:]) == depends
    turned = await keys(core, candidate_set(*reversed(TEXTS)))
    assert turned == long[::-1], "a list's order says nothing"


async def test_the_same_key_has_the_same_label_when_a_passage_was_lost_at_first() -> None:
    asked, backend = candidate_set(*TEXTS), LosingBackend("Recursively")
    core = core_of("wide", "wide/best", backend=backend)
    first = await fused(core, asked)
    backend.lost = ""
    healed = await fused(core, asked)
    assert isinstance(first[0].outcome, Missing)
    assert first[1].outcome != healed[1].outcome, "the best of the list was not known at first"
    assert {each.judgment_key for each in first[1:]}.isdisjoint(each.judgment_key for each in healed)
    without = await fused(core, candidate_set(*TEXTS[1:]))
    assert [(e.judgment_key, e.outcome) for e in first[1:]] == [(e.judgment_key, e.outcome) for e in without]


async def test_a_query_without_text_stays_an_error() -> None:
    (answer,) = await core_of("wide").judge([candidate_set(LOCK, query=" ")])
    assert isinstance(answer, InvalidQuery)


def test_a_map_of_another_judge_is_refused_naming_both() -> None:
    panel = panel_of()
    other = Judge(FakeBackend(), make_strategy("binary", "0-3"), NoCache())
    foreign = replace(map_of(panel, "wide"), inputs=(MapInput("judge", "short", other.hashes[0]),))
    with pytest.raises(ConfigError) as raised:
        Ensemble(panel, foreign)
    said = str(raised.value)
    assert f"fitted on the judges short ({other.hashes[0][:12]})" in said
    assert all(f"{name} ({judge.hashes[0][:12]})" in said for name, judge in panel.judges.items())
    assert "qrelay judge calibrate" in said


async def test_a_judge_may_have_another_name_than_when_the_map_was_fitted() -> None:
    panel = panel_of()
    renamed = Panel({f"my {name}": judge for name, judge in panel.judges.items()}, NoCache())
    labels = await fused(Ensemble(renamed, map_of(panel, "wide", "likely")), candidate_set(*TEXTS))
    assert [e.outcome for e in labels] == [
        e.outcome for e in await fused(core_of("wide", "likely"), candidate_set(*TEXTS))
    ]


def settings(calibration: Path | str) -> JudgeSettings:
    members = {"wide": MemberSettings(strategy="graded"), "likely": MemberSettings(strategy="query_likelihood")}
    return JudgeSettings(backend="fake", cache=":none:", judges=members, calibration=str(calibration))


async def test_the_settings_alone_make_a_fused_core_that_says_what_it_reads(tmp_path: Path) -> None:
    maps = {"plain": map_of(panel_of(), "wide", "likely"), "leaning": map_of(panel_of(), "wide", "dense")}
    save_maps(maps, "plain", tmp_path / "maps.json")
    core = load_core(settings(f"{tmp_path / 'maps.json'}#leaning"))
    assert isinstance(core, Ensemble)
    assert core.info().models["judge"] == maps["leaning"].identity.fingerprint
    assert core.info().details["leans on retrieval scores"] == "yes"
    assert "wide, dense; fitted on 100 pairs of 10 queries" in core.info().details["calibration"]
    core.close()
    by_default = load_core(settings(tmp_path / "maps.json"))
    assert by_default.info().details["leans on retrieval scores"] == "no"


def test_settings_with_a_map_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="qrelay judge calibrate"):
        load_core(settings(tmp_path / "absent.json"))


async def test_an_ensemble_says_of_each_collection_whether_its_queries_are_like_those_of_the_map() -> None:
    words = [f"word{n}" for n in range(6)]
    lists = [[f"{' '.join(words[: n % (3 + q % 4)])} in passage {q} {n}" for n in range(6)] for q in range(20)]
    sets = [candidate_set(*each, query=" ".join(words), query_id=f"q{q}") for q, each in enumerate(lists)]
    panel = panel_of()
    fitted = map_of(panel, "wide", "likely")
    ensemble = Ensemble(panel, fitted)
    assert "not recorded" in ensemble.info().details["calibration's domain"]
    labels = [each for each in await ensemble.judge(sets) if isinstance(each, JudgedSet)]
    rows = [
        [[float(part.split("=")[1]) for part in label.raw_reply.split()] for label in each.judgments[-6:]]
        for each in labels
    ]
    for moved, said in ((0.0, "no difference shows"), (3.0, "differ")):
        profiles = tuple(filter(None, (profile([[x + moved for x in row] for row in each]) for each in rows)))
        watched = Ensemble(panel, replace(fitted, domain=Domain("elsewhere", profiles)))
        await watched.judge(sets)
        assert said in watched.info().details["calibration's domain: docs"]
