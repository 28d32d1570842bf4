"""Settings and loading: impossible combinations are named together, absent things say what to do."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.judge.group import judge as judge_command
from qrelay.errors import ConfigError, ModelError
from qrelay.judging.cache import NoCache
from qrelay.judging.engines import chat_engine, engine_class
from qrelay.judging.load import load_core, load_judge
from qrelay.judging.settings import JudgeSettings
from qrelay.settings import load_settings
from tests.judging.samples import COPYTREE, LOCK, QUERY
from tests.llm.engines import model_path


def settings(**environ: str) -> JudgeSettings:
    """From environment variables alone, as a container would."""
    prefixed = {f"QRELAY_JUDGE__{name.upper()}": value for name, value in environ.items()}
    return load_settings(JudgeSettings, "judge", environ=prefixed)


def test_an_engine_that_writes_nothing_is_refused_before_its_model_is_read() -> None:
    with pytest.raises(ConfigError, match="--backend llamacpp"):
        chat_engine(settings(backend="openvino", model="path:nothing-is-here"))


def test_all_impossible_combinations_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        settings(
            backend="openai",
            model="",
            endpoint__url="ftp://nowhere",
            endpoint__total_timeout_s="1",
            endpoint__extra_body='{"temperature": 1}',
            prefilter__min_chars="50",
            prefilter__max_chars="10",
        )
    for part in ("endpoint.url", "model is empty", "total_timeout_s", "extra_body", "prefilter.min_chars"):
        assert part in str(caught.value)


def test_credentials_in_the_url_are_refused() -> None:
    with pytest.raises(ConfigError, match="api_key_env"):
        settings(backend="openai", endpoint__url="https://user:secret@host/v1")


def test_an_api_key_that_is_not_set_is_named(tmp_path: Path) -> None:
    chosen = settings(
        backend="openai",
        endpoint__url="http://localhost:1/v1",
        endpoint__api_key_env="QRELAY_TEST_ABSENT_KEY",
        data_dir=str(tmp_path),
    )
    with pytest.raises(ConfigError, match="QRELAY_TEST_ABSENT_KEY"):
        load_core(chosen)


def test_an_unknown_model_is_an_error_that_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="smollm2-135m-instruct"):
        load_core(settings(model="no-such-model", data_dir=str(tmp_path)))


def test_a_strategy_that_the_backend_cannot_serve_is_refused_at_start() -> None:
    chosen = settings(backend="openai", endpoint__url="https://host/v1", strategy="query_likelihood", cache=":none:",
                      endpoint__prompt_logprobs="off")  # fmt: skip
    with pytest.raises(ConfigError, match="prompt_logprobs"):
        load_core(chosen)


def test_a_strategy_that_suits_the_engine_is_the_default() -> None:
    assert settings().strategy == "query_likelihood"
    assert settings(backend="llamacpp").strategy == "graded"
    assert settings(backend="openai", endpoint__url="https://host/v1").strategy == "graded"
    assert settings(backend="llamacpp", strategy="binary").strategy == "binary"


@pytest.mark.parametrize(
    ("base", "member", "asks"),
    [
        ({"backend": "embedder"}, {"backend": "llamacpp"}, "graded"),
        ({"backend": "embedder"}, {"backend": "transformers"}, "query_likelihood"),
        ({"backend": "cross-encoder"}, {"backend": "vllm"}, "query_likelihood"),
        ({"backend": "cross-encoder"}, {"backend": "embedder"}, "pair_score"),
        ({"backend": "embedder", "strategy": "consensus"}, {"backend": "embedder", "model": "other"}, "consensus"),
        ({"backend": "embedder", "strategy": "consensus"}, {"backend": "cross-encoder"}, "pair_score"),
        ({"backend": "embedder", "strategy": "consensus"}, {"backend": "fake"}, "graded"),
        ({"strategy": "query_likelihood"}, {"backend": "llamacpp"}, "graded"),
        ({"strategy": "binary"}, {"backend": "llamacpp"}, "binary"),
        ({"strategy": "binary"}, {"backend": "embedder"}, "pair_score"),
        ({"strategy": "binary"}, {"backend": "embedder", "strategy": "consensus"}, "consensus"),
    ],
)
def test_a_member_inherits_the_strategy_where_its_engine_serves_it(
    base: dict[str, Any], member: dict[str, Any], asks: str
) -> None:
    given = JudgeSettings.model_validate({"model": "m", **base, "judges": {"one": member}})
    assert given.members()["one"].strategy == asks


def test_an_encoder_inherits_no_rubric_and_another_language_model_does() -> None:
    members = {"encoder": {"backend": "embedder"}, "other": {"backend": "llamacpp"}}
    found = JudgeSettings.model_validate({"model": "m", "rubric": "graded-0-3", "judges": members}).members()
    assert [found[name].rubric for name in members] == ["", "graded-0-3"]


def test_two_endpoints_with_the_same_model_name_are_two_judges(tmp_path: Path) -> None:
    identities = {
        load_judge(settings(backend="openai", model="m", endpoint__url=f"https://host{n}/v1"), NoCache()).identity
        for n in range(2)
    }
    assert len(identities) == 2


def test_the_cache_lies_in_the_data_folder_unless_said_otherwise(tmp_path: Path) -> None:
    assert settings(data_dir=str(tmp_path)).cache_path == str(tmp_path / "judge-cache.sqlite")
    assert settings(cache=":none:").cache_path == ":none:"


def test_judge_try_shows_probabilities_and_prompt(tmp_path: Path) -> None:
    passages = tmp_path / "passages.jsonl"
    passages.write_text(json.dumps({"title": "shutil", "text": COPYTREE}) + f"\n{LOCK}\n")
    arguments = ["try", "--query", QUERY, "--passages", str(passages), "--strategy", "binary", "--json"]
    model = f"path:{model_path('smollm2-135m-instruct')}"
    result = CliRunner().invoke(judge_command, [*arguments, "--model", model], catch_exceptions=False)
    shown = json.loads(result.stdout)
    assert [each["passage_id"] for each in shown["judgments"]] == ["#1", "#2"]
    assert sum(shown["judgments"][0]["outcome"]["probabilities"]) == pytest.approx(1.0)
    assert "shutil" in shown["messages"][-1]["content"]


def test_judge_try_and_cache_stats_for_people(tmp_path: Path) -> None:
    env = {"QRELAY_JUDGE__BACKEND": "fake", "QRELAY_JUDGE__DATA_DIR": str(tmp_path)}
    run = CliRunner()
    result = run.invoke(judge_command, ["try", "--query", QUERY, "--passage", COPYTREE], env=env)
    assert result.exit_code == 0, result.output
    assert "Query: How do I copy a directory tree?" in result.output
    assert "fake-judge@1:none" in result.output
    result = run.invoke(judge_command, ["cache", "stats"], env=env)
    assert result.exit_code == 1
    assert "there is no cache" in result.output
    load_core(load_settings(JudgeSettings, "judge", environ=env)).close()
    result = run.invoke(judge_command, ["cache", "stats", "--json"], env=env)
    assert json.loads(result.output)["labels"] == 0


def test_judge_try_names_the_line_that_does_not_parse(tmp_path: Path) -> None:
    passages = tmp_path / "passages.jsonl"
    passages.write_text('fine\n{"url": "no text"}\n')
    result = CliRunner().invoke(judge_command, ["try", "--query", "q", "--passages", str(passages)])
    assert f"{passages}:2" in str(result.exception)


def test_an_engine_in_this_process_takes_small_batches_unless_told_otherwise() -> None:
    assert JudgeSettings().worker.max_items == 2
    assert JudgeSettings(backend="fake").worker.max_items == 32
    assert JudgeSettings.model_validate({"worker": {"max_items": 9}}).worker.max_items == 9
    assert JudgeSettings.model_validate({"worker": {"drain_s": 9}}).worker.max_items == 2


@pytest.mark.parametrize("backend", ["llamacpp", "openvino", "transformers", "vllm"])
def test_an_engine_of_this_machine_takes_every_setting_of_its_section_by_name(backend: str) -> None:
    taken = inspect.signature(engine_class(backend)).parameters
    assert set(type(getattr(JudgeSettings(), backend)).model_fields) <= set(taken)


def test_a_judge_by_batches_holds_many_messages_unless_it_is_told_how_many() -> None:
    chosen = settings(backend="openai-batch", endpoint__url="https://host/v1")
    assert (chosen.worker.max_items, chosen.worker.batches_in_flight, chosen.worker.max_attempts) == (8, 250, 25)
    assert chosen.worker.max_items * (chosen.worker.batches_in_flight + 1) <= chosen.nats.max_ack_pending
    assert chosen.strategy == "graded"
    own = settings(backend="openai-batch", endpoint__url="https://host/v1", worker__max_items="3")
    assert (own.worker.max_items, own.worker.batches_in_flight) == (3, 250)
    several = "{a: {backend: openai-batch}, b: {backend: fake}}"
    assert settings(endpoint__url="https://host/v1", judges=several).worker.batches_in_flight == 250


def test_batches_need_a_cache_to_be_written_down_in() -> None:
    with pytest.raises(ConfigError, match=r"judge\.cache, which is :none:"):
        settings(backend="openai-batch", endpoint__url="https://host/v1", cache=":none:")


def test_batches_are_not_asked_by_token_ids() -> None:
    with pytest.raises(ConfigError, match="cannot ask by token_ids"):
        settings(backend="openai-batch", endpoint__url="https://host/v1", endpoint__label_logprobs="token_ids")


def test_a_budget_of_batches_alone_has_their_price() -> None:
    given = {
        "endpoint__url": "https://host/v1",
        "budget__price_per_million_tokens": "0.4",
        "budget__money_per_day": "1",
    }
    batches = settings(backend="openai-batch", **given)
    assert (batches.priced_budget.day_tokens, batches.budget.day_tokens) == (5_000_000, 2_500_000)
    both = settings(judges="{a: {backend: openai-batch}, b: {backend: fake}}", **given)
    assert both.priced_budget.day_tokens == 2_500_000
