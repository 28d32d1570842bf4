"""The backend `openvino`: with quantised activations too, a label does not depend on what is asked beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrelay.errors import ConfigError
from qrelay.judging.engines import refuse_lacking
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies.answer_nll import AnswerNll
from qrelay.llm.exchange import Continuation, TargetLogprobs
from qrelay.llm.openvino import OpenVinoBackend
from qrelay.llm.prefixes import PADDING, TokenQuery, padded_batches
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY


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


@given(st.lists(st.integers(1, 200), max_size=30), st.integers(1, 500))
def test_batches_cover_all_in_order_and_a_width_follows_from_a_sequences_own_length(
    lengths: list[int], limit: int
) -> None:
    asked = [TokenQuery((1,) * length, range(length)) for length in lengths]
    batches = list(padded_batches(asked, limit))
    assert [each for batch, _ in batches for each in batch] == asked
    for batch, width in batches:
        assert {-(-len(each.ids) // PADDING) * PADDING for each in batch} == {width}
        assert len(batch) == 1 or len(batch) * width <= limit
