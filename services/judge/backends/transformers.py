"""`transformers`: a Hugging Face folder or a GGUF in this process, computed by PyTorch on a CPU or a GPU.

    score          the model's own chat template, thinking off; the 20 likeliest first tokens, and the labels' own
    loglikelihood  context and target tokenised apart, without template, and joined
    generate       greedy; guided to its choices, where given, by a trie of their tokens

The engine for processors that compute in bfloat16 (AVX-512 BF16, AMX, any recent GPU): a 0.5B model reads 594
tokens a second on two such cores, against 196 in float32 and about 200 in llama.cpp. `dtype` auto takes bfloat16
there and float32 elsewhere; the dtype is part of every label's decoding, as its last digits depend on it.

A target without a context follows one neutral token (BOS, else EOS, else padding), as does every context where the
tokenizer puts BOS by default. Log-probabilities are of the whole vocabulary's softmax in float32, at temperature 1.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from qrelay.errors import BackendUnavailable, InternalError, ModelError, QrelayError
from services.judge.backends.base import TOP_LOGPROBS, Incapable, Weights
from services.judge.backends.prefixes import TokenQuery
from services.judge.backends.replies import first_token, without_thoughts
from services.judge.backends.texts import Tokens
from services.judge.backends.weights_folder import weights_folder
from services.judge.exchange import (
    GENERATION,
    PROMPT_LOGPROBS,
    TOKEN_LOGPROBS,
    Chat,
    Continuation,
    Prompt,
    Reply,
    TargetLogprobs,
    TokenLogprobs,
)

Question = TypeVar("Question")
Answer = TypeVar("Answer")

_REMEDY = "raise judge.transformers.context_tokens"


class TransformersBackend(Incapable):
    """See the module. One worker thread of its own answers the calls in the order they came."""

    def __init__(
        self,
        path: Path,
        weights: Weights,
        *,
        dtype: str = "auto",
        device: str = "auto",
        threads: int = 0,
        context_tokens: int = 4096,
        batch_tokens: int = 2048,
        prefix_cache: bool = True,
    ) -> None:
        """Load the folder or GGUF at `path`; a GGUF is converted once, see `weights_folder`.

        dtype: "auto", "bfloat16", "float32". device: "auto" or PyTorch's name for one. threads: of the CPU, 0
        leaves PyTorch's choice. context_tokens: of one question. batch_tokens: computed at once, padding included.
        prefix_cache: off only to measure what it brings.

        Raises:
            ModelError: transformers is not installed or cannot load the weights.
        """
        self.weights = weights
        self._executor = ThreadPoolExecutor(1, "transformers", initializer=_set_threads, initargs=(threads,))
        loading = self._executor.submit(self._load, path, dtype, device, context_tokens, batch_tokens, prefix_cache)
        try:
            loading.result()
        except BaseException:
            self._executor.shutdown()
            raise

    def _load(
        self, path: Path, dtype: str, device: str, context_tokens: int, batch_tokens: int, prefix_cache: bool
    ) -> None:
        try:
            import torch

            from services.judge.backends.forward import Forward
        except ImportError as error:
            raise ModelError(f"{error.name} is not installed: run `pip install qrelay[judge]`") from error
        device = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        dtype = dtype if dtype != "auto" else native_dtype(device)
        folder = weights_folder(path, self.weights.revision, dtype)
        self._model = _load_model(folder, dtype, device)
        self._tokens = Tokens.load(folder, context_tokens, _REMEDY)
        self._forward = Forward(self._model, batch_tokens=batch_tokens, prefix_cache=prefix_cache)
        engine = f"engine=transformers;dtype={dtype}"
        self._decodings = {PROMPT_LOGPROBS: f"{engine};start={self._tokens.start_name};temperature=1"}
        if self._tokens.has_template:
            chat = f"{engine};chat-template=model;temperature=0"
            self._decodings[TOKEN_LOGPROBS] = f"{chat};max_tokens=1;top_logprobs={TOP_LOGPROBS}+labels"
            self._decodings[GENERATION] = f"{chat};thinking=off"

    @property
    def capabilities(self) -> frozenset[str]:
        """All three; without a chat template only PROMPT_LOGPROBS."""
        return frozenset(self._decodings)

    def decodings(self, capability: str) -> tuple[str, ...]:
        """One a capability; none for what it lacks."""
        return (self._decodings[capability],) if capability in self._decodings else ()

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt. Cancelling ends the call after the group that is being computed."""
        return await self._run(self._score, prompts)

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """One answer a continuation, as `score`."""
        return await self._run(self._loglikelihood, continuations)

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """One reply a chat, one after the other."""
        return await self._run(self._generate, chats)

    async def _run(
        self, answer: Callable[[Sequence[Question], threading.Event], list[Answer]], questions: Sequence[Question]
    ) -> list[Answer]:
        if self._model is None:
            raise InternalError("the judge's engine was used after close")
        if not questions:
            return []
        cancelled = threading.Event()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, answer, questions, cancelled)
        finally:
            cancelled.set()

    def _score(self, prompts: Sequence[Prompt], cancelled: threading.Event) -> list[TokenLogprobs | QrelayError]:
        read = [self._tokens.of_chat(prompt.messages()) for prompt in prompts]
        labels = iter(
            [prompt.labels for prompt, each in zip(prompts, read, strict=True) if isinstance(each, TokenQuery)]
        )
        return self._answers(
            read, cancelled, lambda query, logprobs: self._first_token(query, logprobs, next(labels))
        )

    def _first_token(self, query: TokenQuery, logprobs: Any, labels: tuple[str, ...]) -> TokenLogprobs:
        """The likeliest tokens and those of the labels, best first: a label at the twentieth place must not come
        and go with the last digits."""
        row = logprobs[0]
        ids = {*row.topk(TOP_LOGPROBS).indices.tolist(), *self._tokens.spellings(labels)}
        best = sorted(((float(row[token]), token) for token in ids), reverse=True)
        tokens = tuple((self._tokens.text([token]), logprob) for logprob, token in best)
        return first_token(tokens, tokens[0][0], len(query.ids), self._decodings[TOKEN_LOGPROBS])

    def _loglikelihood(
        self, continuations: Sequence[Continuation], cancelled: threading.Event
    ) -> list[TargetLogprobs | QrelayError]:
        """Computed by length: what is alike in length is padded little. Targets of one context stay together, so that
        it is read once."""
        read = [self._tokens.of_continuation(each.context, each.target) for each in continuations]
        order = sorted(range(len(read)), key=lambda n: _by_length(read[n]))
        answers = dict(zip(order, self._answers([read[n] for n in order], cancelled, self._target), strict=True))
        return [answers[n] for n in range(len(read))]

    def _target(self, query: TokenQuery, logprobs: Any) -> TargetLogprobs:
        target = query.ids[query.wanted.start + 1 :]
        values = tuple(float(row[token]) for row, token in zip(logprobs, target, strict=True))
        return TargetLogprobs(values, len(query.ids), self._decodings[PROMPT_LOGPROBS])

    def _answers(
        self,
        read: Sequence[TokenQuery | QrelayError],
        cancelled: threading.Event,
        answer: Callable[[TokenQuery, Any], Answer],
    ) -> list[Answer | QrelayError]:
        """An answer for each that could be read; what the engine throws costs the rest of the call its answers."""
        queries = [each for each in read if isinstance(each, TokenQuery)]
        answers: list[Answer | QrelayError] = []
        try:
            for logprobs in self._forward.logprobs(queries):
                answers += [answer(queries[len(answers) + n], each) for n, each in enumerate(logprobs)]
                if cancelled.is_set():
                    break
        except RuntimeError as error:  # PyTorch's own: out of memory, a lost device
            self._forward.forget()
            answers = [*answers, *[_failed(error)] * (len(queries) - len(answers))]
        answered = iter(answers)
        stopped = BackendUnavailable("the call was cancelled")
        return [next(answered, stopped) if isinstance(each, TokenQuery) else each for each in read]

    def _generate(self, chats: Sequence[Chat], cancelled: threading.Event) -> list[Reply | QrelayError]:
        return [
            BackendUnavailable("the call was cancelled") if cancelled.is_set() else self._reply(chat)
            for chat in chats
        ]

    def _reply(self, chat: Chat) -> Reply | QrelayError:
        messages = [{"role": role, "content": content} for role, content in chat.messages]
        query = self._tokens.of_chat(messages, room=chat.max_tokens)
        if isinstance(query, QrelayError):
            return query
        try:
            ids = self._greedy(query.ids, chat)
        except RuntimeError as error:
            return _failed(error)
        text = without_thoughts(self._tokens.text(ids))
        return Reply(text, len(query.ids), len(ids), self._decodings[GENERATION])

    def _greedy(self, prompt: tuple[int, ...], chat: Chat) -> list[int]:
        """The ids of the reply, its end left off. Nothing of the model's own sampling settings applies."""
        import torch
        from transformers import GenerationConfig

        ends = self._tokens.ends(self._model.generation_config.eos_token_id)
        own = GenerationConfig(
            do_sample=False,
            max_new_tokens=chat.max_tokens,
            repetition_penalty=1.0,
            eos_token_id=ends,
            pad_token_id=ends[0],
        )
        guide = self._tokens.guide(chat.choices, len(prompt), ends[0]) if chat.choices else None
        ids = torch.tensor([prompt], device=self._model.device)
        with torch.inference_mode():
            done = self._model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=own, prefix_allowed_tokens_fn=guide
            )
        return [token for token in done[0, len(prompt) :].tolist() if token not in ends]

    def close(self) -> None:
        """Let the running group end, free the model."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._model = None
        self._forward.forget()


def _by_length(query: TokenQuery | QrelayError) -> tuple[int, tuple[int, ...], int]:
    if isinstance(query, QrelayError):
        return 0, (), 0
    return query.shareable, query.ids[: query.shareable], len(query.ids)


def native_dtype(device: str) -> str:
    """ "bfloat16" where the processor computes in it (AVX-512 BF16, AMX; CUDA from capability 8 on), else
    "float32"."""
    import torch

    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float32"
    able = torch.cpu.get_capabilities()
    return "bfloat16" if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile")) else "float32"


def _load_model(folder: Path, dtype: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
    except Exception as error:  # the library raises whatever the bytes provoke
        raise ModelError(
            f"transformers cannot load {folder} ({type(error).__name__}: {str(error)[:200]}): check that it is a "
            "folder of a causal language model that fits into memory (judge.model, judge.transformers.device)"
        ) from error


def _set_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _failed(error: RuntimeError) -> QrelayError:
    return BackendUnavailable(f"PyTorch failed: {type(error).__name__}; lower judge.transformers.batch_tokens")
