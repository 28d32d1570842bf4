"""The backend `openvino`: with quantised activations too, a label does not depend on what is asked beside it; what
targets share is read once."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from qrelay.errors import ConfigError
from qrelay.judging.engines import refuse_lacking
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies.answer_nll import AnswerNll
from qrelay.llm.exchange import PROMPT_LOGPROBS, SHARED_CONTEXT, Continuation, TargetLogprobs
from qrelay.llm.openvino import OpenVinoBackend
from qrelay.llm.openvino_model import reads_packed_rows
from qrelay.llm.prefixes import PADDING, Row, TokenQuery, packed, padded_batches
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY

TINY: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip


async def test_the_same_question_has_the_same_likelihood_in_any_company(small_openvino: OpenVinoBackend) -> None:
    texts = (COPYTREE, COPYTREE * 3, LOCK, COOKING * 2, COPYTREE)
    asked = [Continuation(f"{text}\nQuestion: ", QUERY, QUERY, text) for text in texts]
    together = await small_openvino.loglikelihood(asked)
    for each, beside in zip(asked, together, strict=True):
        (alone,) = await small_openvino.loglikelihood([each])
        assert isinstance(alone, TargetLogprobs) and isinstance(beside, TargetLogprobs)
        assert beside.logprobs == pytest.approx(alone.logprobs, abs=1e-3), "a width of its own moves it by tenths"


def test_a_strategy_that_has_answers_written_is_refused_with_the_cause(small_openvino: OpenVinoBackend) -> None:
    settings = JudgeSettings(backend="openvino", strategy="answer_nll")
    with pytest.raises(ConfigError, match=r"answer_nll needs generation.*writes nothing.*transformers") as refused:
        refuse_lacking(small_openvino, settings, AnswerNll().spec.needs)
    assert "chat template" not in str(refused.value)


async def test_targets_of_one_context_are_as_likely_beside_other_passages_and_nearly_as_alone(
    small_openvino: OpenVinoBackend,
) -> None:
    questions = (QUERY, "What is a lock?", "How do I copy a folder with everything in it?")
    asked = [
        [Continuation(f"{text}\nQuestion: ", each, each, text, shared=True) for each in questions]
        for text in (COPYTREE, LOCK)
    ]
    first = await likelihoods(small_openvino, asked[0])
    assert await likelihoods(small_openvino, [*asked[1], *reversed(asked[0])]) == [
        *await likelihoods(small_openvino, asked[1]), *reversed(first)
    ]  # fmt: skip
    alone = await likelihoods(small_openvino, [replace(each, shared=False) for each in asked[0]])
    for shared, own in zip(first, alone, strict=True):
        assert (shared.decoding, own.decoding) == (
            small_openvino.decodings(SHARED_CONTEXT)[0], small_openvino.decodings(PROMPT_LOGPROBS)[0]
        )  # fmt: skip
        assert fmean(shared.logprobs) == pytest.approx(fmean(own.logprobs), abs=0.15)
        assert shared.prompt_tokens == own.prompt_tokens


async def likelihoods(backend: OpenVinoBackend, asked: list[Continuation]) -> list[TargetLogprobs]:
    answers = await backend.loglikelihood(asked)
    return [each for each in answers if isinstance(each, TargetLogprobs)]


@pytest.mark.parametrize(
    ("config", "packs"),
    [
        (LlamaConfig(**TINY), True),
        (Qwen2Config(**TINY), True),
        (MistralConfig(**TINY, sliding_window=4), False),
        (BloomConfig(vocab_size=32, hidden_size=16, n_layer=2, n_head=2), False),
    ],
    ids=["rotary", "biased", "a sliding window", "positions in the attention"],
)
def test_a_model_is_asked_whether_it_reads_rows_of_several_sequences(config: PretrainedConfig, packs: bool) -> None:
    assert reads_packed_rows(AutoModelForCausalLM.from_config(config).eval()) is packs


TARGETS = st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=6), min_size=1, max_size=5)


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans(), TARGETS), max_size=5), st.integers(1, 120))
def test_in_a_row_every_token_sees_what_is_before_it_in_its_own_sequence(
    contexts: list[tuple[int, bool, list[list[int]]]], limit: int
) -> None:
    asked = [
        TokenQuery((1,) * length + tuple(target), range(length - 1, length + len(target) - 1), shared)
        for length, shared, targets in contexts
        for target in targets
    ]
    rows = list(packed(asked, limit))
    read = [(row, places) for row in rows for places in row.places]
    assert len(read) == len(asked)
    for query, (row, places) in zip(asked, read, strict=True):
        assert [seen(row, at) for at in places] == [query.ids[: at + 1] for at in query.wanted]
        assert [row.positions[at] for at in places] == list(query.wanted)
    assert all(len(row.places) == 1 or len(row.ids) <= limit for row in rows)


def seen(row: Row, at: int) -> tuple[int, ...]:
    """The tokens that the one at this place sees."""
    return tuple(row.ids[n] for n in range(at + 1) if row.branches[n] in (0, row.branches[at]))


def test_a_context_that_seven_targets_share_is_computed_once() -> None:
    targets = [TokenQuery((*range(100), *(n,) * 9), range(99, 108), shared=True) for n in range(7)]
    (row,) = packed(targets, 2048)
    assert len(row.ids) == 100 + 7 * 8, "a target's last token predicts nothing that is read"
    assert len(list(packed([replace(each, shared=False) for each in targets], 2048))) == 7


@given(st.lists(st.integers(1, 200), max_size=30), st.integers(1, 500))
def test_batches_cover_all_in_order_and_a_width_follows_from_a_rows_own_length(
    lengths: list[int], limit: int
) -> None:
    asked = list(packed([TokenQuery((1,) * length, range(length)) for length in lengths], limit))
    batches = list(padded_batches(asked, limit))
    assert [each for batch, _ in batches for each in batch] == asked
    for batch, width in batches:
        assert {-(-len(each.ids) // PADDING) * PADDING for each in batch} == {width}
        assert len(batch) == 1 or len(batch) * width <= limit
