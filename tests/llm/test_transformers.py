"""The backend `transformers` against the library's own full forward pass, and how questions are grouped."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from qrelay.errors import ConfigError, MalformedInput, ModelError
from qrelay.judging.engines import make_backend
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
from qrelay.llm.prefixes import TokenQuery, common, groups
from qrelay.llm.transformers import TransformersBackend
from qrelay.llm.weights_folder import weights_folder
from qrelay.models.dtypes import native_dtype
from qrelay.types import Graded
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY, passage
from tests.llm.engines import CONTEXT_TOKENS, THREADS, small_model

STRATEGY = make_strategy("graded", "0-3", min_mass=0.0)
TEXTS = (COPYTREE, LOCK, COOKING, "A short one.")
LAYERS = 4
EXACT = 2e-3
"""Nats: what summing float32 in another order moves."""


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first layers of the 135M model, with its tokenizer, as a Hugging Face folder in float32: what is asked here
    is how it is computed, not what the model knows."""
    model = small_model()
    whole = weights_folder(model.path, model.revision, "float32")
    folder = tmp_path_factory.mktemp("shallow")
    AutoModelForCausalLM.from_pretrained(whole, num_hidden_layers=LAYERS).save_pretrained(folder)
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def small_transformers(shallow: Path) -> Iterator[TransformersBackend]:
    """PyTorch in float32 with these layers."""
    weights = Weights("shallow", "test", "float32")
    backend = TransformersBackend(shallow, weights, dtype="float32", context_tokens=CONTEXT_TOKENS, threads=THREADS)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def reference(shallow: Path) -> tuple[Any, Any]:
    """The library's own model and tokenizer, nothing of ours in between."""
    model = AutoModelForCausalLM.from_pretrained(shallow, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(shallow)


@pytest.fixture
def without_prefixes(small_transformers: TransformersBackend) -> Iterator[TransformersBackend]:
    small_transformers._forward.prefix_cache = False
    yield small_transformers
    small_transformers._forward.prefix_cache = True


def by_hand(reference: tuple[Any, Any], ids: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token at every position of one whole sequence: (tokens, vocabulary)."""
    with torch.inference_mode():
        return torch.log_softmax(reference[0](torch.tensor([ids])).logits[0].float(), dim=-1)


def continuations() -> list[Continuation]:
    shared = "You read a passage and ask the question that it answers. Ask in one sentence.\n\nPassage: "
    return [Continuation(f"{shared}{text}\nQuestion: ", QUERY) for text in TEXTS]


def prompts() -> list[Prompt]:
    return [STRATEGY.prompt(query, passage(text)) for query in (QUERY, "What is a lock?") for text in TEXTS]


async def targets(backend: TransformersBackend, asked: list[Continuation]) -> list[tuple[float, ...]]:
    return [each.logprobs for each in await backend.loglikelihood(asked) if isinstance(each, TargetLogprobs)]


async def tops(backend: TransformersBackend, asked: list[Prompt]) -> list[tuple[tuple[str, float], ...]]:
    return [each.tokens for each in await backend.score(asked) if isinstance(each, TokenLogprobs)]


async def test_a_targets_log_probabilities_are_those_of_the_whole_sequence_at_its_own_tokens(
    small_transformers: TransformersBackend, reference: tuple[Any, Any]
) -> None:
    measured = await targets(small_transformers, continuations())
    for each, values in zip(continuations(), measured, strict=True):
        head, tail = (reference[1](text).input_ids for text in (each.context, each.target))
        rows = by_hand(reference, head + tail)
        expected = [float(rows[len(head) + n - 1, token]) for n, token in enumerate(tail)]
        assert values == pytest.approx(expected, abs=EXACT)


async def test_a_target_without_a_context_follows_the_models_start_token(
    small_transformers: TransformersBackend, reference: tuple[Any, Any]
) -> None:
    (measured,) = await targets(small_transformers, [Continuation("", QUERY)])
    start, tail = reference[1].bos_token_id, reference[1](QUERY).input_ids
    rows = by_hand(reference, [start, *tail])
    assert measured == pytest.approx([float(rows[n, token]) for n, token in enumerate(tail)], abs=EXACT)


async def test_the_first_tokens_are_those_of_the_chat_template_and_hold_every_label(
    small_transformers: TransformersBackend, reference: tuple[Any, Any]
) -> None:
    for prompt, tokens in zip(prompts(), await tops(small_transformers, prompts()), strict=True):
        ids = reference[1].apply_chat_template(prompt.messages(), add_generation_prompt=True, return_dict=False)
        row = by_hand(reference, ids)[-1]
        best = row.topk(20)
        assert [logprob for _, logprob in tokens[:20]] == pytest.approx(best.values.tolist(), abs=EXACT)
        assert tokens[0][0] == reference[1].decode([best.indices[0]])
        labels = {text: logprob for text, logprob in tokens if text in prompt.labels}
        by_label = {label: float(row[reference[1](label).input_ids[0]]) for label in prompt.labels}
        assert labels == pytest.approx(by_label, abs=EXACT)


async def test_prefix_reuse_does_not_change_an_answer(without_prefixes: TransformersBackend) -> None:
    backend = without_prefixes
    fresh = await tops(backend, prompts()), await targets(backend, continuations())
    backend._forward.prefix_cache = True
    for asked in (prompts(), prompts()[::-1]):
        reused = await tops(backend, asked)
        expected = fresh[0] if asked == prompts() else fresh[0][::-1]
        for one, other in zip(reused, expected, strict=True):
            assert dict(one) == pytest.approx(dict(other), abs=EXACT)
    for one, other in zip(await targets(backend, continuations()), fresh[1], strict=True):
        assert one == pytest.approx(other, abs=EXACT)


async def test_one_querys_prompts_compute_their_common_prefix_once(small_transformers: TransformersBackend) -> None:
    computed: list[int] = []
    hook = small_transformers._model.register_forward_pre_hook(
        lambda _, __, given: computed.append(given["input_ids"].numel()), with_kwargs=True
    )
    small_transformers._forward.forget()
    sizes = [each.prompt_tokens for each in await small_transformers.score(prompts()[:4])]  # type: ignore[union-attr]
    together, computed[:] = sum(computed), []
    await small_transformers.score(prompts()[:4])
    again = sum(computed)
    hook.remove()
    assert together < 0.6 * sum(sizes)
    assert again < together, "the prefix of the call before is continued"


async def test_bfloat16_answers_as_float32_does(shallow: Path, small_transformers: TransformersBackend) -> None:
    coarse = TransformersBackend(
        shallow, Weights("m", "r", "q"), dtype="bfloat16", context_tokens=CONTEXT_TOKENS, threads=THREADS
    )
    try:
        replies = [await coarse.score(prompts()), await small_transformers.score(prompts())]
    finally:
        coarse.close()
    for one, other in zip(*replies, strict=True):
        grades = [STRATEGY.grade(each) for each in (one, other) if isinstance(each, TokenLogprobs)]
        spread = [each.probabilities for each in grades if isinstance(each, Graded)]
        assert spread[0] == pytest.approx(spread[1], abs=0.04)
    assert coarse.decodings(TOKEN_LOGPROBS) != small_transformers.decodings(TOKEN_LOGPROBS)


async def test_an_empty_target_is_refused(small_transformers: TransformersBackend) -> None:
    (answer,) = await small_transformers.loglikelihood([Continuation("context", "")])
    assert isinstance(answer, MalformedInput)


async def test_a_cancelled_call_ends_early_and_the_next_one_is_answered(
    small_transformers: TransformersBackend,
) -> None:
    many = [STRATEGY.prompt(f"{n} {QUERY}", passage(COPYTREE)) for n in range(200)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(small_transformers.score(many), 0.2)
    (answer,) = await small_transformers.score(prompts()[:1])
    assert isinstance(answer, TokenLogprobs)


def test_a_model_without_a_chat_template_reads_targets_and_is_refused_for_chats(
    shallow: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "base-model"
    shutil.copytree(shallow, plain, ignore=shutil.ignore_patterns("chat_template.jinja"), copy_function=_link)
    settings = JudgeSettings.model_validate({"backend": "transformers", "model": f"path:{plain}"})
    backend = make_backend(settings, needs=frozenset({PROMPT_LOGPROBS}))
    assert backend.capabilities == {PROMPT_LOGPROBS}
    backend.close()
    with pytest.raises(ConfigError, match="no chat template"):
        make_backend(settings, needs=frozenset({TOKEN_LOGPROBS}))


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def test_a_gguf_is_converted_once(tmp_path: Path) -> None:
    model = small_model()
    first = weights_folder(model.path, model.revision, "bfloat16", home=tmp_path)
    written = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    second = weights_folder(model.path, model.revision, "bfloat16", home=tmp_path)
    assert first == second
    assert written == {path.name: path.stat().st_mtime_ns for path in second.iterdir()}
    assert not list((tmp_path / ".converted").glob("*.unfinished")), "no half copies"


def test_a_file_that_is_no_model_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match=r"broken\.gguf.*check that it is a\s+GGUF"):
        weights_folder(broken, "r", "float32", home=tmp_path)
    assert [path.suffix for path in (tmp_path / ".converted").iterdir()] in ([], [".lock"])


def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no weights")
    with pytest.raises(ModelError, match="folder of a causal language model"):
        TransformersBackend(tmp_path, Weights("m", "r", "q"), dtype="float32")


def test_the_dtype_of_this_processor_is_one_that_it_computes_in() -> None:
    able = torch.cpu.get_capabilities()
    assert native_dtype("cpu") == ("bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32")


def queries(*ids: list[int]) -> list[TokenQuery]:
    return [TokenQuery(tuple(each), range(len(each) - 1, len(each))) for each in ids]


def test_neighbours_of_one_query_share_a_group_and_the_next_query_begins_another() -> None:
    instructions, one, two = list(range(100)), [1] * 60, [2] * 60
    passages = [[7, n, n, n] for n in range(4)]
    asked = queries(*[instructions + query + each for query in (one, two) for each in passages])
    assert [(each.start, each.stop, each.prefix) for each in groups(asked, 2048)] == [(0, 4, 161), (4, 8, 161)]


@given(st.lists(st.tuples(st.integers(40, 90), st.lists(st.integers(1, 12), min_size=2, max_size=7)), max_size=4))
def test_a_context_of_several_targets_is_computed_once_whatever_comes_before_it(
    contexts: list[tuple[int, list[int]]],
) -> None:
    asked = [
        TokenQuery((1, *(number,) * length, *(0,) * target), range(length, length + target))
        for number, (length, targets) in enumerate(contexts, 2)
        for target in sorted(targets)
    ]
    kept: tuple[int, ...] = ()
    computed = 0
    for each in groups(asked, 2048):
        first, members = asked[each.start].ids, each.stop - each.start
        prefix = each.prefix if members > 1 else min(common(kept, first), asked[each.start].shareable)
        computed += prefix - min(common(kept, first), prefix)
        computed += sum(len(other.ids) - prefix for other in asked[each.start : each.stop])
        kept = first[:prefix] if members > 1 else first
    assert computed <= sum(length + sum(targets) + len(targets) for length, targets in contexts)


def test_a_lone_prompt_and_one_beyond_the_batch_stand_alone() -> None:
    asked = queries([1] * 50, list(range(5000)), [2] * 10)
    assert [(each.start, each.stop) for each in groups(asked, 64)] == [(0, 1), (1, 2), (2, 3)]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=60), max_size=12), st.integers(1, 200))
def test_groups_cover_all_in_order_share_their_prefix_and_keep_to_the_batch(ids: list[list[int]], limit: int) -> None:
    asked = queries(*ids)
    found = list(groups(asked, limit))
    assert [n for each in found for n in range(each.start, each.stop)] == list(range(len(asked)))
    for each in found:
        members = asked[each.start : each.stop]
        assert all(common(members[0].ids, other.ids) >= each.prefix for other in members)
        assert all(other.wanted.start >= each.prefix for other in members)
        rests = [len(other.ids) - each.prefix for other in members]
        if len(members) > 1 and each.prefix:
            assert max(rests) * len(rests) <= limit
