"""How an endpoint is asked for log-probabilities: found out once, the same for all who ask it, shown in the label."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.judge.group import judge as judge_command
from qrelay.errors import BackendUnavailable, ConfigError, EndpointRefuses, MalformedInput, Oversized
from qrelay.exitcodes import EXIT_OK
from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.judging.cache import JudgmentCache, NoCache
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.engine_settings import EndpointSettings
from qrelay.judging.engines import make_backend
from qrelay.judging.load import load_core
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import Weights
from qrelay.llm.exchange import (
    PROMPT_LOGPROBS,
    TOKEN_LOGPROBS,
    Continuation,
    Prompt,
    TargetLogprobs,
    TokenLogprobs,
)
from qrelay.llm.openai import OpenAIBackend
from qrelay.llm.ways import AUTO, ECHO, OFF, SHARES, TOKEN_IDS, TOP
from qrelay.types import Graded
from tests.conftest import LONG_S
from tests.judging.samples import COPYTREE, LOCK, QUERY, candidate_set, judge_one, make_judge, passage, reasons
from tests.llm import fake_vllm as fake
from tests.llm.endpoint import ScriptedEndpoint, text_only
from tests.llm.fake_vllm import FakeVllm

WEIGHTS = Weights("m", "rev", "q")
BOTH = frozenset({TOKEN_LOGPROBS, PROMPT_LOGPROBS})
FAST = Policy(concurrency=2, max_retries=0, retry_base_s=0.01, total_timeout_s=LONG_S, breaker_failures=99)
GRADED = make_strategy("graded", "0-3", min_mass=0.0)
BINARY = make_strategy("binary", "0-1", min_mass=0.0)
PLAIN = "engine=openai;temperature=0;max_tokens=1;top_logprobs=20"
BY_IDS = "engine=openai;temperature=0;max_tokens=1;logprob_token_ids=labels"


@pytest.fixture
def vllm() -> Iterator[FakeVllm]:
    with FakeVllm() as running:
        yield running


def backend(endpoint: ScriptedEndpoint, notebook: JudgmentCache | None = None, **options: Any) -> OpenAIBackend:
    given = {"label_logprobs": AUTO, "prompt_logprobs": AUTO, **options}
    limits = Limits(LONG_S, retry_refused_s=1e-9)
    return OpenAIBackend(endpoint.url, WEIGHTS, policy=FAST, limits=limits, notebook=notebook, **given)


def learned(endpoint: ScriptedEndpoint, **options: Any) -> tuple[str, str]:
    """The ways that the endpoint turned out to have."""
    asked = backend(endpoint, **options)
    asked.learn(BOTH)
    return asked._ways.name(TOKEN_LOGPROBS), asked._ways.name(PROMPT_LOGPROBS)


def test_a_server_that_gives_everything_is_asked_by_token_ids(vllm: FakeVllm) -> None:
    asked = backend(vllm)
    asked.learn(BOTH)
    assert asked.decodings(TOKEN_LOGPROBS) == (BY_IDS,)
    assert asked.decodings(PROMPT_LOGPROBS) == ("engine=openai;prompt_logprobs=token_ids;temperature=1;start=model",)
    notes = asked.notes
    assert notes["label log-probabilities"].startswith(f"{TOKEN_IDS} (/tokenize given, logprob_token_ids given")
    assert "server version 0.32.0" in notes["prompt log-probabilities"]
    assert len(vllm.requests) <= 10


@pytest.mark.parametrize(
    ("faults", "labels", "targets"),
    [
        ((), TOKEN_IDS, TOKEN_IDS),
        ((fake.NO_TOKENIZE,), TOP, ECHO),
        ((fake.OTHER_TOKENIZE,), TOP, ECHO),
        ((fake.NO_TOKENIZE, fake.NO_COMPLETIONS), TOP, OFF),
        ((fake.IDS_IGNORED,), SHARES, TOKEN_IDS),
        ((fake.IDS_REFUSED,), SHARES, TOKEN_IDS),
        ((fake.IDS_RENORMALISED,), SHARES, TOKEN_IDS),
        ((fake.IDS_LACKING,), SHARES, TOKEN_IDS),
        ((fake.IDS_IGNORED, fake.NO_SCORING), TOP, TOKEN_IDS),
        ((fake.IDS_IGNORED, fake.SCORING_RENORMALISED), TOP, TOKEN_IDS),
        ((fake.NO_LOGPROBS,), TOP, OFF),
        ((fake.PROMPT_IGNORED,), TOKEN_IDS, ECHO),
        ((fake.PROMPT_SHIFTED,), TOKEN_IDS, ECHO),
        ((fake.PROMPT_IGNORED, fake.ECHO_BARE), TOKEN_IDS, OFF),
        ((fake.PROMPT_IGNORED, fake.ECHO_REFUSED), TOKEN_IDS, OFF),
    ],
    ids=lambda given: "+".join(given) or "nothing wrong" if isinstance(given, tuple) else None,
)
def test_what_is_refused_ignored_or_silently_wrong_is_not_taken(
    faults: tuple[str, ...], labels: str, targets: str
) -> None:
    with FakeVllm(*faults) as endpoint:
        assert learned(endpoint) == (labels, targets)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (fake.IDS_REFUSED, "logprob_token_ids refused (400)"),
        (fake.IDS_IGNORED, "logprob_token_ids ignored"),
        (fake.IDS_RENORMALISED, "logprob_token_ids wrong"),
    ],
)
def test_refused_ignored_and_wrong_are_told_apart_for_people(vllm: FakeVllm, fault: str, said: str) -> None:
    vllm.faults = {fault}
    asked = backend(vllm)
    asked.learn(BOTH)
    assert said in asked.notes["label log-probabilities"]


def test_an_endpoint_without_any_of_it_keeps_the_decodings_that_it_had(vllm: FakeVllm) -> None:
    vllm.faults = {fake.NO_TOKENIZE, fake.NO_COMPLETIONS}
    asked, before = backend(vllm), backend(vllm, label_logprobs=TOP, prompt_logprobs=OFF)
    asked.learn(BOTH)
    assert asked.decodings(TOKEN_LOGPROBS) == before.decodings(TOKEN_LOGPROBS)
    assert asked.decodings(TOKEN_LOGPROBS)[0] == PLAIN
    assert asked.capabilities == before.capabilities


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("way", [TOKEN_IDS, SHARES])
async def test_every_label_has_its_own_probability_however_unlikely(vllm: FakeVllm, way: str, chat: bool) -> None:
    (found,) = await backend(vllm, label_logprobs=way, chat=chat).score([GRADED.prompt(QUERY, passage(COPYTREE))])
    assert isinstance(found, TokenLogprobs), found
    outcome = GRADED.grade(found)
    assert isinstance(outcome, Graded)
    masses = [0.003, 0.01, 0.05, 0.3]
    assert outcome.probabilities == pytest.approx([mass / sum(masses) for mass in masses], abs=2e-3)
    assert found.unseen == 0.0


async def test_every_spelling_that_counts_is_asked_for(vllm: FakeVllm) -> None:
    (found,) = await backend(vllm, label_logprobs=TOKEN_IDS).score([BINARY.prompt(QUERY, passage(COPYTREE))])
    assert isinstance(found, TokenLogprobs), found
    assert {"YES", "yes", "NO", "Y", "n"} <= {text for text, _ in found.tokens}
    (asked,) = [each for each in vllm.requests if "logprob_token_ids" in each]
    assert len(asked["logprob_token_ids"]) == 2 * 2 * (3 + 2), "two labels, a word in three cases and a letter in two"
    assert "top_logprobs" not in asked


@pytest.mark.parametrize("chat", [True, False])
async def test_a_target_travels_as_the_tokens_that_it_has_after_every_context(vllm: FakeVllm, chat: bool) -> None:
    reader = backend(vllm, prompt_logprobs=TOKEN_IDS, chat=chat)
    asked = [Continuation("Passage: a", "bc NO The"), Continuation("", "bc NO The")]
    for found in await reader.loglikelihood(asked):
        assert isinstance(found, TargetLogprobs), found
        assert found.logprobs == pytest.approx([math.log(p) for p in (fake.RARE, 0.02, fake.RARE)])
        assert (found.decoding,) == reader.decodings(PROMPT_LOGPROBS)
    sent = [each["prompt"] for each in vllm.requests if each.get("prompt_logprobs") is not None]
    tail = vllm.ids("bc") + vllm.ids(" NO") + vllm.ids(" The")
    assert sent == [vllm.ids("Passage: a") + tail, vllm.ids("\n") + tail]


async def test_a_server_that_stops_giving_them_holds_the_work_and_makes_no_label(
    vllm: FakeVllm, tmp_path: Path
) -> None:
    judge = make_judge(backend(vllm), tmp_path / "c.sqlite")
    assert reasons(await judge_one(judge, candidate_set(COPYTREE))) == ["graded"]
    vllm.faults = {fake.IDS_IGNORED}
    (found,) = await judge.backend.score([GRADED.prompt(QUERY, passage(LOCK))])
    assert isinstance(found, EndpointRefuses)
    assert "judge.endpoint.label_logprobs" in str(found)


async def test_labels_that_are_no_token_are_a_settings_error(vllm: FakeVllm) -> None:
    odd = Prompt("system", "user", "passage", ("NOT-ONE-TOKEN", "NEITHER-IS-THIS"), "q", "p")
    (found,) = await backend(vllm, label_logprobs=TOKEN_IDS).score([odd])
    assert isinstance(found, EndpointRefuses)
    assert "'NOT-ONE-TOKEN' is no single token" in str(found)


async def test_a_chat_beyond_the_context_is_too_long_where_the_server_would_cut_it(vllm: FakeVllm) -> None:
    long = GRADED.prompt(QUERY, passage("word " * fake.CONTEXT))
    (found,) = await backend(vllm, label_logprobs=SHARES).score([long])
    assert isinstance(found, Oversized), found


async def test_an_empty_target_is_refused(vllm: FakeVllm) -> None:
    (found,) = await backend(vllm, prompt_logprobs=TOKEN_IDS).loglikelihood([Continuation("a", "")])
    assert isinstance(found, MalformedInput)


def test_it_is_found_out_once_for_all_who_share_the_cache(vllm: FakeVllm, tmp_path: Path) -> None:
    first, second = (SqlCache(str(tmp_path / "c.sqlite")) for _ in range(2))
    assert learned(vllm, notebook=first) == (TOKEN_IDS, TOKEN_IDS)
    asked = len(vllm.requests)
    vllm.faults = {fake.DOWN}
    assert learned(vllm, notebook=second) == (TOKEN_IDS, TOKEN_IDS), "of a restart while the endpoint is down"
    assert len(vllm.requests) == asked


def test_two_replicas_that_find_out_different_things_at_once_agree_on_the_first(
    vllm: FakeVllm, tmp_path: Path
) -> None:
    cache = SqlCache(str(tmp_path / "c.sqlite"))

    class Late(SqlCache):
        """A replica that sees nothing before another has written."""

        def recall(self, key: str) -> str | None:
            found = super().recall(key)
            assert learned(vllm, notebook=cache) == (TOKEN_IDS, TOKEN_IDS)
            return found

    slow = Late(str(tmp_path / "c.sqlite"))
    with FakeVllm(fake.NO_TOKENIZE) as poorer:
        other = OpenAIBackend(poorer.url, WEIGHTS, notebook=slow, label_logprobs=AUTO)
        other.learn(frozenset({TOKEN_LOGPROBS}))
    assert other.decodings(TOKEN_LOGPROBS) == (BY_IDS,)


async def test_a_model_that_has_labels_is_asked_as_these_were(vllm: FakeVllm, tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    before = make_judge(backend(vllm, label_logprobs=TOP, prompt_logprobs=OFF), file)
    (old,) = (await judge_one(before, candidate_set(COPYTREE))).judgments
    asked = backend(vllm, SqlCache(str(file)))
    asked.learn(BOTH)
    after = make_judge(asked, file)
    (new,) = (await judge_one(after, candidate_set(COPYTREE))).judgments
    assert (new.judge, new.judgment_key, new.cached) == (old.judge, old.judgment_key, True)
    assert "labels of this model exist" in after.info().details["engine: label log-probabilities"]
    assert not any("logprob_token_ids" in each for each in vllm.requests)


async def test_a_model_whose_way_was_set_keeps_it_when_it_is_left_open_later(vllm: FakeVllm, tmp_path: Path) -> None:
    file = tmp_path / "c.sqlite"
    await judge_one(make_judge(backend(vllm, label_logprobs=SHARES), file), candidate_set(COPYTREE))
    vllm.faults = {fake.DOWN}
    assert learned(vllm, notebook=SqlCache(str(file)))[0] == SHARES


async def test_what_is_set_overrides_what_was_found_and_asks_nothing_beforehand(
    vllm: FakeVllm, tmp_path: Path
) -> None:
    cache = SqlCache(str(tmp_path / "c.sqlite"))
    assert learned(vllm, notebook=cache) == (TOKEN_IDS, TOKEN_IDS)
    vllm.requests.clear()
    assert learned(vllm, notebook=cache, label_logprobs=TOP, prompt_logprobs=ECHO) == (TOP, ECHO)
    assert vllm.requests == []


@pytest.mark.parametrize("fault", [fake.DOWN, fake.WRONG_KEY])
async def test_an_endpoint_that_does_not_answer_at_the_start_is_asked_before_its_first_label(
    vllm: FakeVllm, tmp_path: Path, fault: str
) -> None:
    vllm.faults = {fault}
    cache = SqlCache(str(tmp_path / "c.sqlite"))
    asked = backend(vllm, cache)
    asked.learn(BOTH)
    assert asked.capabilities >= BOTH
    judge = make_judge(asked, cache)
    assert reasons(await judge_one(judge, candidate_set(COPYTREE))) == [
        "unavailable" if fault == fake.DOWN else "error"
    ]
    (refused,) = await asked.loglikelihood([Continuation("a", " b")])
    assert isinstance(refused, BackendUnavailable | EndpointRefuses)
    assert cache.recall("") is None
    vllm.faults = set()
    judged = await judge_one(judge, candidate_set(COPYTREE))
    assert reasons(judged) == ["graded"]
    assert judged.judgments[0].judge == judge.identity
    assert judge.identity.decoding == BY_IDS
    (again,) = (await judge_one(judge, candidate_set(COPYTREE))).judgments
    assert again.cached


async def test_many_questions_at_once_find_out_together(vllm: FakeVllm) -> None:
    asked = backend(vllm)
    prompts = [GRADED.prompt(f"{QUERY} {n}", passage(COPYTREE)) for n in range(4)]
    await asyncio.gather(*(asked.score([each]) for each in prompts))
    plain = [each for each in vllm.requests if "top_logprobs" in each]
    assert len(plain) == 1


async def test_a_text_only_endpoint_is_read_as_before(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = text_only("3")
    judge = make_judge(backend(endpoint))
    (judgment,) = (await judge_one(judge, candidate_set(COPYTREE))).judgments
    assert "no-logprobs" in judgment.judge.decoding


def test_a_damaged_record_is_an_error_that_says_what_to_do(vllm: FakeVllm) -> None:
    class Damaged(NoCache):
        """Its notes are not ours."""

        def recall(self, key: str) -> str | None:
            return "{]"

    asked = backend(vllm, Damaged())
    asked.learn(BOTH)
    with pytest.raises(BackendUnavailable, match=r"judge\.endpoint\.label_logprobs"):
        asyncio.run(asked._ways.settle(TOKEN_LOGPROBS, lambda: asked._find(TOKEN_LOGPROBS)))


def test_the_settings_take_the_former_values_of_prompt_logprobs() -> None:
    given = {True: ECHO, False: OFF, "true": ECHO, "False": OFF, AUTO: AUTO, TOKEN_IDS: TOKEN_IDS}
    for value, way in given.items():
        assert EndpointSettings.model_validate({"prompt_logprobs": value}).prompt_logprobs == way
    with pytest.raises(ValueError, match="prompt_logprobs"):
        EndpointSettings.model_validate({"prompt_logprobs": "maybe"})


def test_a_strategy_that_the_endpoint_turns_out_not_to_serve_is_refused_at_start(vllm: FakeVllm) -> None:
    vllm.faults = {fake.NO_TOKENIZE, fake.NO_COMPLETIONS}
    settings = JudgeSettings(backend="openai", model="m", endpoint={"url": vllm.url})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"endpoint\.prompt_logprobs"):
        make_backend(settings, needs=frozenset({PROMPT_LOGPROBS}))


async def test_a_judge_of_the_settings_measures_likelihoods_by_token_ids(vllm: FakeVllm, tmp_path: Path) -> None:
    settings = JudgeSettings(
        backend="openai", model="m", strategy="query_likelihood", endpoint={"url": vllm.url}, data_dir=tmp_path
    )  # type: ignore[arg-type]
    core = await asyncio.to_thread(load_core, settings)
    (judged,) = await core.judge([candidate_set(COPYTREE, LOCK)])
    core.close()
    assert [each.judge.decoding for each in judged.judgments] == [  # type: ignore[union-attr]
        "engine=openai;prompt_logprobs=token_ids;temperature=1;start=model"
    ] * 2


def test_try_and_preview_judge_as_the_service_does_and_say_how_the_endpoint_is_asked(
    vllm: FakeVllm, tmp_path: Path
) -> None:
    env = {"QRELAY_JUDGE__BACKEND": "openai", "QRELAY_JUDGE__MODEL": "m", "QRELAY_JUDGE__ENDPOINT__URL": vllm.url}
    given = ["try", "--data-dir", str(tmp_path), "--query", QUERY, "--passage", COPYTREE]
    done = CliRunner().invoke(judge_command, [*given, "--json"], env=env)
    assert done.exit_code == EXIT_OK, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert found["judge"]["decoding"] == BY_IDS
    assert found["engine"]["label log-probabilities"].startswith(TOKEN_IDS)
    vllm.faults = {fake.IDS_REFUSED}
    vllm.requests.clear()
    shown = CliRunner().invoke(judge_command, given, env=env).output
    assert "logprob_token_ids" in str(vllm.requests), "what was found out by the first call holds for the second"
    assert "judge.endpoint.label_logprobs" in " ".join(shown.split())


async def test_llamacpps_own_server_is_asked_as_before(real_endpoint: str) -> None:
    asked = OpenAIBackend(real_endpoint, WEIGHTS, limits=Limits(LONG_S), label_logprobs=AUTO, prompt_logprobs=AUTO)
    await asyncio.to_thread(asked.learn, BOTH)
    assert asked.decodings(TOKEN_LOGPROBS)[0] == PLAIN
    assert PROMPT_LOGPROBS not in asked.capabilities
    asked.close()
