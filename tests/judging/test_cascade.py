"""The cascade: the small side answers where it is sure, the large judge the rest, and an audit keeps watch."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrelay.errors import BackendUnavailable, ConfigError, InputError, QrelayError
from qrelay.identity import judge_digest
from qrelay.judging.cache import NoCache
from qrelay.judging.calibration import CalibrationMap, FittedOn, MapInput, save_maps
from qrelay.judging.cascade import Cascade, load_cascade
from qrelay.judging.drift import LEAST, Watch
from qrelay.judging.escalation import chance_wrong, in_audit, simulate
from qrelay.judging.judge import Judge
from qrelay.judging.load import load_core
from qrelay.judging.panel import Panel
from qrelay.judging.settings import CascadeSettings, JudgeSettings, MemberSettings
from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import Weights
from qrelay.llm.exchange import TOKEN_LOGPROBS, Prompt, TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.stats.calibration import Logistic
from qrelay.stats.intervals import clopper_pearson
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment, Missing, Query
from tests.judging.samples import NOW, passage, reply

PAIRS = st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)), min_size=1, max_size=12)


class ToldBackend(FakeBackend):
    """The double, but P(yes) stands in the passage, as `name=0.7`; `name=fails` fails, `=mumbles` says neither."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.weights = Weights(name, "1", "none")

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        self.asked += len(prompts)
        return [self._told(prompt.passage) for prompt in prompts]

    def _told(self, text: str) -> TokenLogprobs | QrelayError:
        (told,) = re.findall(rf"{self.name}=(\S+)", text)
        if told == "fails":
            return BackendUnavailable("told to fail")
        if told == "mumbles":
            return self._reply({"hm": 0.99})
        return self._reply({"YES": float(told), "NO": 1 - float(told)})

    def _reply(self, probabilities: dict[str, float]) -> TokenLogprobs:
        return replace(reply(probabilities), decoding=self.decodings(TOKEN_LOGPROBS)[0])


def told(name: str, strategy: str = "binary") -> Judge:
    return Judge(ToldBackend(name), make_strategy(strategy, "0-3"), NoCache(), clock=lambda: NOW)


def map_of(
    *judges: tuple[str, Judge], scale: str = "0-1", stage: bool = False, weights: Any = None
) -> CalibrationMap:
    """With one judge: its own P, unchanged."""
    inputs = [MapInput("judge", name, judge.hashes[0]) for name, judge in judges]
    inputs += [MapInput("stage", "bm25")] if stage else []
    n = len(inputs)
    model = Logistic((0.0,) * n, (1.0,) * n, weights or (1.0,) * n, 0.0)
    fitted = FittedOn("0" * 64, 100, 10, 40, relevant_from=1)
    return CalibrationMap(tuple(inputs), model, scale, 0, (0.5,), (), 0.5, fitted, {})


def cascade(*, large_map: bool = False, stage: bool = False, **options: Any) -> Cascade:
    small, large = told("small"), told("large")
    both = map_of(("small", small), ("large", large), weights=(0.0, 1.0)) if large_map else None
    chosen = CascadeSettings(order=("small", "large"), calibration="set", **options)
    panel = Panel({"small": small}, NoCache())
    return Cascade(panel, map_of(("small", small), stage=stage), large, both, chosen)


def texts(pairs: Sequence[tuple[float | str, float | str]], mark: str = "") -> CandidateSet:
    candidates = [Candidate(passage(f"small={a} large={b} n={n}{mark}", n), ()) for n, (a, b) in enumerate(pairs)]
    return CandidateSet(Query(f"q{mark}", "what?", "docs"), tuple(candidates), "v1")


def asked(core: Cascade) -> int:
    backend = core._large._backend
    assert isinstance(backend, ToldBackend)
    return backend.asked


def finals(judged: JudgedSet | QrelayError) -> list[Judgment]:
    assert isinstance(judged, JudgedSet), judged
    return [each for each in judged.judgments if each.judge.strategy == "cascade"]


def ps(labels: Sequence[Judgment]) -> list[float]:
    return [each.outcome.p_relevant for each in labels if isinstance(each.outcome, Graded)]


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, max_error=st.floats(0, 0.5), audit=st.sampled_from([0.0, 0.3, 1.0]))
def test_each_side_answers_what_is_its_own(pairs: list[tuple[float, float]], max_error: float, audit: float) -> None:
    core = cascade(max_error=max_error, audit=audit)
    (judged,) = asyncio.run(core.judge([texts(pairs)]))
    assert isinstance(judged, JudgedSet)
    labels = finals(judged)
    up = [each.raw_reply.startswith("side=large") for each in labels]
    for (small, large), label, is_up in zip(pairs, labels, up, strict=True):
        assert isinstance(label.outcome, Graded)
        assert label.outcome.p_relevant == pytest.approx(large if is_up else small)
        unsure = min(small, 1 - small) > max_error + 1e-9
        assert is_up or not unsure
        assert not is_up or unsure or audit > 0 or min(small, 1 - small) > max_error - 1e-9
    assert [each.passage_id for each in labels] == [c.passage.passage_id for c in judged.candidate_set.candidates]
    assert asked(core) == sum(up)
    assert core.report()["share_escalated"] == sum(up) / len(pairs)


@settings(max_examples=60, deadline=None)
@given(pairs=PAIRS, max_error=st.floats(0, 0.5), audit=st.sampled_from([0.0, 0.4, 1.0]))
def test_the_simulation_says_what_the_cascade_then_does(
    pairs: list[tuple[float, float]], max_error: float, audit: float
) -> None:
    core = cascade(max_error=max_error, audit=audit)
    made = core._pairs(asyncio.run(core._small.judge([texts(pairs)]))[0])  # type: ignore[arg-type]
    p = [pair.label.outcome.p_relevant for pair in made]  # type: ignore[union-attr]
    keys = [pair.label.judgment_key for pair in made]
    large = [q >= 0.5 for _, q in pairs]
    outcome = simulate(p, [each >= 0.5 for each in p], large, max_error, audit, keys)
    labels = finals(asyncio.run(core.judge([texts(pairs)]))[0])
    assert [each.raw_reply.startswith("side=large") for each in labels] == list(outcome.escalated)
    assert [each >= 0.5 for each in ps(labels)] == list(outcome.decisions)
    assert outcome.agreement >= sum(outcome.escalated) / len(pairs) - 1e-12


@settings(max_examples=100)
@given(p=st.floats(0, 1), threshold=st.floats(0.05, 0.95))
def test_the_chance_of_being_wrong_is_that_of_the_other_decision(p: float, threshold: float) -> None:
    relevant = p >= threshold
    assert chance_wrong(p, relevant) == pytest.approx(1 - chance_wrong(p, not relevant))
    assert chance_wrong(p, relevant) == (1 - p if relevant else p)


def test_the_audit_is_a_fixed_share_and_a_larger_one_holds_the_smaller() -> None:
    keys = [f"key{n}" for n in range(4000)]
    chosen = {share: {key for key in keys if in_audit(key, share)} for share in (0.0, 0.05, 0.2, 1.0)}
    assert chosen[0.0] == set()
    assert chosen[1.0] == set(keys)
    assert chosen[0.05] < chosen[0.2]
    assert len(chosen[0.05]) / 4000 == pytest.approx(0.05, abs=0.015)


def test_the_same_pairs_are_audited_whatever_else_is_judged_with_them() -> None:
    pairs = [(0.99, 0.9)] * 40
    together = finals(asyncio.run(cascade(audit=0.3).judge([texts(pairs)]))[0])
    core = cascade(audit=0.3)
    alone = []
    for each in texts(pairs).candidates:
        (judged,) = asyncio.run(core.judge([CandidateSet(texts(pairs).query, (each,), "v1")]))
        alone += finals(judged)
    assert [each.raw_reply for each in alone] == [each.raw_reply for each in together]
    assert 0 < sum("audited" in each.raw_reply for each in together) < 40


def test_no_pairs_cannot_be_simulated() -> None:
    with pytest.raises(InputError, match="no pairs"):
        simulate([], [], [], 0.1, 0.1, [])


async def test_a_side_is_part_of_the_key_so_that_one_key_never_has_two_labels() -> None:
    pairs = [(0.9, 0.1)]
    (down,) = finals((await cascade(max_error=0.2, audit=0).judge([texts(pairs)]))[0])
    (up,) = finals((await cascade(max_error=0.2, audit=1).judge([texts(pairs)]))[0])
    assert down.judge == up.judge
    assert down.judgment_key != up.judgment_key
    (again,) = finals((await cascade(max_error=0.2, audit=1).judge([texts(pairs)]))[0])
    assert again == up


async def test_what_decides_a_label_is_in_its_identity() -> None:
    plain, stricter, mapped = cascade(), cascade(max_error=0.01), cascade(large_map=True)
    leaning = cascade(stage=True)
    assert len({judge_digest(each.identity) for each in (plain, stricter, mapped, leaning)}) == 4
    assert plain.identity.decoding == "small=small;large=large;stage-scores=no"
    assert leaning.identity.decoding.endswith("stage-scores=yes")
    assert (plain.identity.strategy, plain.identity.scale) == ("cascade", "0-1")


async def test_the_large_map_makes_the_label_of_what_went_up() -> None:
    core = cascade(large_map=True, audit=0)
    (label,) = finals((await core.judge([texts([(0.5, 0.8)])]))[0])
    assert isinstance(label.outcome, Graded)
    assert core._large_map is not None
    assert label.outcome.calibration == core._large_map.hash
    assert label.outcome.p_relevant == pytest.approx(0.8)


async def test_a_pair_that_the_small_judge_cannot_read_goes_up_and_one_that_may_heal_waits() -> None:
    for large_map in (False, True):
        core = cascade(audit=0, large_map=large_map)
        (judged,) = await core.judge([texts([("mumbles", 0.8), ("fails", 0.8), (0.99, 0.8)])])
        unread, failed, sure = finals(judged)
        assert ps([unread, sure]) == pytest.approx([0.8, 0.99])
        assert isinstance(failed.outcome, Missing)
        assert failed.outcome.reason == "unavailable"
        assert asked(core) == 1


async def test_a_large_judge_that_fails_makes_the_label_missing_never_the_small_one() -> None:
    (label,) = finals((await cascade(audit=0).judge([texts([(0.5, "fails")])]))[0])
    assert isinstance(label.outcome, Missing)
    assert label.raw_reply.startswith("side=large")


async def test_the_budget_sends_up_the_least_certain_and_no_more_than_its_share() -> None:
    core = cascade(audit=0, max_error=0.0, budget_share=0.4)
    (judged,) = await core.judge([texts([(0.9, 0.1), (0.5, 0.1), (0.2, 0.1), (0.6, 0.1), (0.99, 0.1)])])
    up = [each.raw_reply.startswith("side=large") for each in finals(judged)]
    assert up == [False, True, False, True, False]
    await core.judge([texts([(0.5, 0.1)] * 5, mark=str(n)) for n in range(4)])
    report = core.report()
    assert report["share_escalated"] <= 0.4
    assert report["kept_down_by_budget"] == report["pairs"] - report["escalated"]


async def test_broken_promises_raise_the_alarm_and_tighten_until_they_are_kept_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    core = cascade(audit=1.0, max_error=0.1, window=40)
    await core.judge([texts([(0.95, 0.05)] * 40, mark="bad")])
    report = core.report()
    assert report["drift"]
    assert report["max_error"] == pytest.approx(0.1 * 0.05, rel=1e-6)
    assert "was promised" in caplog.text
    core._settings = core._settings.model_copy(update={"audit": 0.5})
    (judged,) = await core.judge([texts([(0.95, 0.95)] * 200, mark="good")])
    assert all(each.raw_reply.startswith("side=large") for each in finals(judged)), "stricter while it lasts"
    assert not core.report()["drift"]
    assert core.report()["max_error"] == 0.1
    assert "keeps its promise again" in caplog.text


def test_a_promise_that_is_kept_raises_no_alarm() -> None:
    watch = Watch(200)
    for n in range(200):
        watch.add(f"key{n}", 0.05, wrong=n % 20 == 0)
    assert not watch.audit().drifted
    assert watch.audit().scale == 1.0
    for n in range(LEAST - 1):
        watch.add("again", 0.05, wrong=bool(n))
    assert watch.audit().pairs == 200


def test_too_few_audited_pairs_say_nothing() -> None:
    watch = Watch(50)
    for n in range(LEAST - 1):
        watch.add(f"key{n}", 0.01, wrong=True)
    assert not watch.audit().drifted
    watch.add("one more", 0.01, wrong=True)
    assert watch.audit().drifted


def test_the_interval_is_clopper_and_pearsons() -> None:
    interval = clopper_pearson(4, 20)
    assert (interval.low, interval.high) == pytest.approx((0.0573, 0.4366), abs=1e-4)  # their table, 4 of 20
    assert clopper_pearson(0, 10).low == 0.0
    assert clopper_pearson(10, 10).high == 1.0


def settings_of(folder: Path, order: tuple[str, str] = ("small", "large"), **judges: MemberSettings) -> JudgeSettings:
    members = judges or {name: MemberSettings(strategy=each) for name, each in SIDES.items()}  # type: ignore[arg-type]
    chosen = CascadeSettings(order=order, calibration=str(folder / "map.json"), audit=0.5)
    return JudgeSettings(backend="fake", cache=":none:", judges=members, cascade=chosen)


SIDES = {"small": "query_likelihood", "large": "binary"}


def fake_map(folder: Path) -> None:
    small = Judge(FakeBackend(), make_strategy("query_likelihood", "0-3"), NoCache())
    save_maps({"small": map_of(("small", small))}, "small", folder / "map.json")


async def test_the_settings_alone_make_a_cascade(tmp_path: Path) -> None:
    fake_map(tmp_path)
    core = load_core(settings_of(tmp_path))
    assert isinstance(core, Cascade)
    (judged,) = await core.judge([texts([(0.5, 0.5)])])
    assert len(finals(judged)) == 1
    assert core.info().models["judge"].startswith("cascade@")
    assert "cascade: share_escalated" in core.info().details
    core.close()


@pytest.mark.parametrize(
    ("order", "extra", "says"),
    [
        (("small", "absent"), {}, "judge.judges has small, large"),
        (("small", "large"), {"other": MemberSettings(strategy="graded")}, "leaves out other"),
        (("small", "listwise"), {"listwise": MemberSettings(strategy="utility")}, "leaves out large"),
        (("fused", "listwise"), {"listwise": MemberSettings(strategy="utility")}, "judges whole lists"),
        (("fused", "wide"), {"wide": MemberSettings(strategy="graded")}, "scale 0-1"),
    ],
)
def test_what_cannot_be_a_cascade_is_refused_with_what_to_do(
    tmp_path: Path, order: tuple[str, str], extra: dict[str, MemberSettings], says: str
) -> None:
    fake_map(tmp_path)
    sides = {name: MemberSettings(strategy=each) for name, each in SIDES.items()}  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=says):
        load_core(settings_of(tmp_path, order, **sides, **extra))


def test_a_map_of_another_small_judge_is_refused(tmp_path: Path) -> None:
    save_maps({"small": map_of(("small", told("small")))}, "small", tmp_path / "map.json")
    with pytest.raises(ConfigError, match="qrelay judge calibrate"):
        load_core(settings_of(tmp_path))


@pytest.mark.parametrize("wrong", [{"order": ["a"]}, {"order": ["a", "a"]}, {"order": ["a", "b"]}])
def test_settings_that_name_no_two_judges_or_no_map_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"order names|calibration is empty"):
        CascadeSettings(**wrong)


def test_closing_closes_every_judge_and_the_cache_once(tmp_path: Path) -> None:
    fake_map(tmp_path)
    closed = []
    settings = settings_of(tmp_path)

    class Noted(NoCache):
        def close(self) -> None:
            closed.append("cache")

    judges = {name: Judge(FakeBackend(), make_strategy(each, "0-3"), NoCache()) for name, each in SIDES.items()}
    load_cascade(settings, Panel(judges, Noted())).close()
    assert closed == ["cache"]
