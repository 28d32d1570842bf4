"""`llamacpp`: an embedded llama.cpp (xllamacpp), on the CPU or whatever its build supports.

Choices, measured on 2 cores (docs/judge.md has figures): the work is prompt reading, so one slot that
takes a query's passages one after the other and keeps the shared prefix in its KV cache is fastest; more
slots only compute the prefix once each. `parallel` is there for GPUs.

The GGUF's own chat template is used, thinking off. A reply is guided to its choices by a grammar. The server gives
no log-probabilities of the prompt itself (`echo` is not implemented): the backend `transformers` reads the same GGUF
and does.

Log-probabilities are of the whole vocabulary's softmax at temperature 1 (llama.cpp reports them before sampling).
Reading the prefix in another batch changes the last digits: equal within 4e-2 of probability, see
tests/llm/test_backends.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from qrelay.errors import BackendUnavailable, MalformedInput, ModelError, QrelayError
from qrelay.http.refusals import is_too_long, too_long
from qrelay.llm.base import TOP_LOGPROBS, Local, Weights, used_after_close
from qrelay.llm.exchange import GENERATION, TOKEN_LOGPROBS, Chat, Prompt, Reply, TokenLogprobs
from qrelay.llm.replies import read_completion, read_reply

Question = TypeVar("Question")
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)

_DECODINGS = {
    TOKEN_LOGPROBS: f"engine=llamacpp;chat-template=gguf;temperature=0;max_tokens=1;top_logprobs={TOP_LOGPROBS}",
    GENERATION: "engine=llamacpp;chat-template=gguf;temperature=0;thinking=off",
}


class LlamaCppBackend(Local):
    """See the module. Blocking calls run on `parallel` threads of its own, in the order they were asked."""

    _decodings = _DECODINGS

    def __init__(
        self,
        path: Path,
        weights: Weights,
        *,
        context_tokens: int = 4096,
        threads: int = 0,
        parallel: int = 1,
        gpu_layers: int = 0,
        prefix_cache: bool = True,
    ) -> None:
        """Load the GGUF at `path`.

        context_tokens: of one prompt. threads: 0 leaves llama.cpp's choice (physical cores).
        parallel: prompts at once. prefix_cache: off only to measure what it brings.

        Raises:
            ModelError: llama.cpp cannot load the file.
        """
        self.weights = weights
        self._prefix_cache = prefix_cache
        self._server: Any = _load(path, context_tokens, threads, parallel, gpu_layers)
        self._executor = ThreadPoolExecutor(parallel, thread_name_prefix="llamacpp")

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt, off the event loop; cancelling takes back what has not begun."""
        return await self._run(self._score, prompts)

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """One reply a chat, as `score`."""
        return await self._run(self._generate, chats)

    async def _run(self, answer: Callable[[Question], Answer], questions: Sequence[Question]) -> list[Answer]:
        if self._server is None:
            raise used_after_close()
        loop = asyncio.get_running_loop()
        tasks = [loop.run_in_executor(self._executor, answer, question) for question in questions]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    def _score(self, prompt: Prompt) -> TokenLogprobs | QrelayError:
        request = {"messages": prompt.messages(), "max_tokens": 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return self._ask(request, lambda body: read_completion(body, _DECODINGS[TOKEN_LOGPROBS]))

    def _generate(self, chat: Chat) -> Reply | QrelayError:
        request: dict[str, Any] = {"messages": chat.as_messages(), "max_tokens": chat.max_tokens}
        if chat.choices:
            request["grammar"] = "root ::= " + " | ".join(json.dumps(c, ensure_ascii=False) for c in chat.choices)
        return self._ask(request, lambda body: read_reply(body, _DECODINGS[GENERATION]))

    def _ask(self, request: dict[str, Any], read: Callable[[Any], Answer]) -> Answer | QrelayError:
        always = {
            "temperature": 0,
            "cache_prompt": self._prefix_cache,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        try:
            body = self._server.handle_chat_completions(request | always)
            if "error" not in body:
                return read(body)
        except (ValueError, TypeError) as error:
            return MalformedInput(f"llama.cpp refused the prompt ({type(error).__name__})")
        except Exception as error:  # a native library: whatever it throws costs one pair, not the batch
            return BackendUnavailable(f"llama.cpp failed: {type(error).__name__}")
        failure = body["error"]
        if is_too_long(failure):
            return too_long(failure, "raise judge.llamacpp.context_tokens")
        kind = failure.get("type") if isinstance(failure, dict) else type(failure).__name__
        return BackendUnavailable(f"llama.cpp answered with an error ({kind})")

    def close(self) -> None:
        """Let the running prompts end, drop the others, free the model."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._server = None


def _load(path: Path, context_tokens: int, threads: int, parallel: int, gpu_layers: int) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = context_tokens * parallel
    params.n_parallel = parallel
    params.n_gpu_layers = gpu_layers
    params.cache_ram_mib = 0  # prefixes live in the slots; a RAM copy of old ones would only be memory
    params.verbosity = -1  # llama.cpp writes to stderr, past the JSON logs; failures come as exceptions
    params.endpoint_slots = False
    params.ui = False
    params.api_keys = [secrets.token_urlsafe(24)]  # its HTTP port opens whether wanted or not: nobody gets in
    if threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    with contextlib.suppress(AttributeError):
        params.fit_params = False  # the context is what the settings say, or loading fails
    try:
        return xllamacpp.Server(params)
    except Exception as error:
        raise ModelError(
            f"llama.cpp cannot load {path.name} ({error}): check that it is a GGUF model and that "
            f"{context_tokens * parallel} tokens of context fit into memory (judge.llamacpp.context_tokens)"
        ) from error
