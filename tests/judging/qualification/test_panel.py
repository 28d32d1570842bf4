"""Several judges over the same pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrelay.errors import ConfigError, InvalidQuery
from qrelay.identity import judge_digest
from qrelay.judging.cache import NoCache
from qrelay.judging.judge import Judge
from qrelay.judging.load import load_core, load_panel
from qrelay.judging.panel import Panel
from qrelay.judging.settings import JudgeSettings, MemberSettings
from qrelay.judging.strategies import make_strategy
from qrelay.llm.fake import FakeBackend
from qrelay.types import JudgedSet, Judgment
from tests.judging.samples import COOKING, COPYTREE, LOCK, NOW, candidate_set

STRATEGIES = ("graded", "binary", "query_likelihood")


def settings(cache: str = ":none:", **members: MemberSettings) -> JudgeSettings:
    judges = members or {name: MemberSettings(strategy=name) for name in STRATEGIES}  # type: ignore[arg-type]
    return JudgeSettings(backend="fake", cache=cache, judges=judges)


async def judged(panel: Panel) -> JudgedSet:
    (answer,) = await panel.judge([candidate_set(COPYTREE, LOCK, COOKING)])
    assert isinstance(answer, JudgedSet)
    return answer


async def test_labels_live_side_by_side_and_never_share_a_key() -> None:
    panel = load_panel(settings())
    labels = (await judged(panel)).judgments
    assert [each.judge.strategy for each in labels] == [name for name in STRATEGIES for _ in range(3)]
    assert [each.passage_id for each in labels] == ["d#0", "d#1", "d#2"] * 3
    assert len({each.judgment_key for each in labels}) == 9
    assert [judge_digest(each.judge) for each in labels[::3]] == [j.hashes[0] for j in panel.judges.values()]


async def test_a_panel_says_what_each_of_its_judges_says_alone() -> None:
    together = (await judged(load_panel(settings()))).judgments
    alone: list[Judgment] = []
    for name in STRATEGIES:
        alone += (await judged(load_panel(settings(one=MemberSettings(strategy=name))))).judgments  # type: ignore[arg-type]
    assert [(each.judgment_key, each.outcome) for each in together] == [(e.judgment_key, e.outcome) for e in alone]


async def test_one_cache_serves_all_judges_and_each_finds_its_own_labels(tmp_path: Path) -> None:
    chosen = settings(str(tmp_path / "cache.sqlite"))
    panel = load_panel(chosen)
    first = (await judged(panel)).judgments
    panel.close()
    again = load_panel(chosen)
    second = (await judged(again)).judgments
    backend = again.judges["graded"].backend
    again.close()
    assert isinstance(backend, FakeBackend)
    assert backend.asked == 0
    assert all(each.cached and not each.prompt_tokens for each in second)
    assert [each.outcome for each in second] == [each.outcome for each in first]


def test_judges_of_one_engine_and_model_share_it_and_others_do_not() -> None:
    panel = load_panel(
        settings(
            one=MemberSettings(strategy="graded"),
            two=MemberSettings(strategy="binary"),
            other=MemberSettings(strategy="query_likelihood", model="another"),
        )
    )
    one, two, other = (judge.backend for judge in panel.judges.values())
    assert one is two
    assert one is not other


def test_two_names_for_one_judge_are_refused() -> None:
    twins = settings(first=MemberSettings(strategy="graded"), second=MemberSettings(strategy="graded"))
    with pytest.raises(ConfigError, match=r"first and second are the same judge .* remove one"):
        load_panel(twins)


async def test_a_query_without_text_is_an_error_of_its_set_alone() -> None:
    bad, good = await load_panel(settings()).judge([candidate_set(LOCK, query=" "), candidate_set(LOCK)])
    assert isinstance(bad, InvalidQuery)
    assert isinstance(good, JudgedSet)
    assert len(good.judgments) == 3


def test_info_tells_every_judges_identity_apart() -> None:
    info = load_panel(settings()).info()
    assert sorted(info.models) == [f"judge {name}" for name in sorted(STRATEGIES)]
    assert len({info.details[f"{name}: judge_hash"] for name in STRATEGIES}) == 3
    alone = load_panel(settings(one=MemberSettings(strategy="graded"))).info()
    assert list(alone.models) == ["judge"]


def test_closing_frees_every_engine_and_the_cache() -> None:
    closed = []

    class Noted(FakeBackend):
        def close(self) -> None:
            closed.append("engine")

    class NotedCache(NoCache):
        def close(self) -> None:
            closed.append("cache")

    cache = NotedCache()
    judges = {
        name: Judge(Noted(), make_strategy(name, "0-3"), cache, clock=lambda: NOW) for name in ("graded", "binary")
    }
    Panel(judges, cache).close()
    assert closed == ["engine", "engine", "cache"]


def test_a_core_without_a_map_is_the_panel_alone() -> None:
    assert isinstance(load_core(settings()), Panel)
