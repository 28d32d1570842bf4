"""`vllm`: vLLM's engine, started by this process: a Hugging Face folder or a GGUF, mostly for GPUs.

    score          the model's own chat template, thinking off; the 100 likeliest first tokens
    loglikelihood  context and target tokenised apart, joined; `prompt_logprobs` at the target's tokens
    generate       greedy; guided to its choices, where given, by structured outputs

All questions are handed over at once: vLLM schedules them (continuous batching) and keeps common prefixes (prefix
caching), so there is no queue of ours before it. It does not use its prefix cache where the log-probabilities of the
prompt are asked for. The head is computed in float32 (`head_dtype`), as bfloat16 rounds a logit of 20 to steps of
0.125.

The engine runs in a process of its own and answers on an event loop of this module's, so that it may be used from any
other loop. A GGUF is converted first, see `weights_folder`. A server elsewhere is the backend `openai`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qrelay.errors import BackendUnavailable, ModelError, QrelayError
from qrelay.llm.base import Local, Weights, used_after_close
from qrelay.llm.exchange import (
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
from qrelay.llm.prefixes import TokenQuery
from qrelay.llm.replies import first_token, without_thoughts
from qrelay.llm.tokens import Tokens
from qrelay.llm.weights_folder import weights_folder

Question = TypeVar("Question")
Answer = TypeVar("Answer")

_TOP = 100
"""First tokens asked for: so many that a label at the end of the list has no probability worth mentioning."""
_REMEDY = "raise judge.vllm.context_tokens"
_GIB = 1 << 30


class VllmBackend(Local):
    """See the module."""

    def __init__(
        self,
        path: Path,
        weights: Weights,
        *,
        dtype: str = "auto",
        context_tokens: int = 4096,
        max_sequences: int = 64,
        gpu_memory_utilization: float = 0.9,
        kv_cache_gib: float = 2.0,
    ) -> None:
        """Start the engine with the folder or GGUF at `path`; takes about a minute.

        dtype: "auto" or vLLM's name for one. context_tokens: of one question. max_sequences: at once.
        gpu_memory_utilization: share of the GPU's memory. kv_cache_gib: GiB of cache, on a CPU.

        Raises:
            ModelError: vLLM is not installed, or cannot serve the model.
        """
        self.weights = weights
        _require_vllm()
        from qrelay.models.dtypes import native_dtype

        device = _device()
        dtype = native_dtype(device) if dtype == "auto" else dtype
        folder = weights_folder(path, weights.revision, "float32" if dtype == "float32" else "bfloat16")
        self._tokens = Tokens.load(folder, context_tokens, _REMEDY)
        self._ids = itertools.count()
        self._decodings = self._tokens.decodings(f"engine=vllm;dtype={dtype}", top=str(_TOP))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        by_device: dict[str, Any] = {"gpu_memory_utilization": gpu_memory_utilization}
        if device == "cpu":
            by_device = {"kv_cache_memory_bytes": int(kv_cache_gib * _GIB), "enforce_eager": True}
        self._engine: Any = None
        try:
            # one token more than is asked of a question: vLLM wants room for a reply
            starting = _start(folder, dtype, context_tokens + 1, max_sequences, by_device)
            self._engine = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        except Exception as error:  # the engine's process dies of many things
            self.close()
            raise ModelError(
                f"vLLM cannot serve {path.name} ({type(error).__name__}: {str(error)[:300]}): check that its "
                "architecture is supported and that judge.vllm.* leaves enough memory"
            ) from error

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt; cancelling aborts what the engine has not answered."""
        return await self._run(self._score, prompts)

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """One answer a continuation, as `score`."""
        return await self._run(self._loglikelihood, continuations)

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """One reply a chat, as `score`."""
        return await self._run(self._generate, chats)

    async def _run(
        self, answer: Callable[[Question], Coroutine[Any, Any, Answer]], questions: Sequence[Question]
    ) -> list[Answer]:
        if self._engine is None:
            raise used_after_close()

        async def every() -> list[Answer]:
            return list(await asyncio.gather(*map(answer, questions)))

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(every(), self._loop))

    async def _score(self, prompt: Prompt) -> TokenLogprobs | QrelayError:
        query = self._tokens.of_chat(prompt.messages())
        done = await self._complete(query, max_tokens=1, logprobs=_TOP)
        if isinstance(done, QrelayError):
            return done
        best = sorted(done.outputs[0].logprobs[0].items(), key=lambda each: -each[1].logprob)
        tokens = tuple((self._tokens.text([token]), float(each.logprob)) for token, each in best)
        return first_token(tokens, tokens[0][0], len(done.prompt_token_ids), self._decodings[TOKEN_LOGPROBS])

    async def _loglikelihood(self, each: Continuation) -> TargetLogprobs | QrelayError:
        query = self._tokens.of_continuation(each.context, each.target)
        done = await self._complete(query, max_tokens=1, prompt_logprobs=0)
        if isinstance(done, QrelayError):
            return done
        ids = done.prompt_token_ids
        begin = len(ids) - len(query.wanted) if isinstance(query, TokenQuery) else 0
        values = tuple(float(done.prompt_logprobs[at][ids[at]].logprob) for at in range(begin, len(ids)))
        return TargetLogprobs(values, len(ids), self._decodings[PROMPT_LOGPROBS])

    async def _generate(self, chat: Chat) -> Reply | QrelayError:
        query = self._tokens.of_chat(chat.as_messages(), room=chat.max_tokens)
        done = await self._complete(query, max_tokens=chat.max_tokens, **_guide(chat.choices))
        if isinstance(done, QrelayError):
            return done
        output = done.outputs[0]
        text = without_thoughts(output.text)
        return Reply(text, len(done.prompt_token_ids), len(output.token_ids), self._decodings[GENERATION])

    async def _complete(self, query: TokenQuery | QrelayError, **sampling: Any) -> Any:
        """vLLM's RequestOutput of the whole reply, or the error that prevented it."""
        if isinstance(query, QrelayError):
            return query
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        parameters = SamplingParams(temperature=0.0, output_kind=RequestOutputKind.FINAL_ONLY, **sampling)
        prompt = {"prompt_token_ids": list(query.ids)}
        try:
            replies = [each async for each in self._engine.generate(prompt, parameters, str(next(self._ids)))]
        except Exception as error:  # one question's trouble, or the engine's end: neither may cost the others
            return BackendUnavailable(f"vLLM failed ({type(error).__name__}): restart the judge if this continues")
        return replies[-1] if replies else BackendUnavailable("vLLM ended the question without an answer")

    def close(self) -> None:
        """End the engine's process; questions under way fail."""
        engine, self._engine = self._engine, None
        if engine is not None:
            self._loop.call_soon_threadsafe(engine.shutdown)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=30)


async def _start(folder: Path, dtype: str, context_tokens: int, max_sequences: int, by_device: dict[str, Any]) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(folder),
        load_format="safetensors",  # and no pickle
        dtype=dtype,
        max_model_len=context_tokens,
        max_num_seqs=max_sequences,
        max_logprobs=_TOP,
        enable_prefix_caching=True,
        generation_config="vllm",  # nothing of the model's own sampling settings
        hf_overrides={"head_dtype": "float32"},
        disable_log_stats=True,
        **by_device,
    )
    return AsyncLLM.from_engine_args(arguments)


def _guide(choices: Sequence[str]) -> dict[str, Any]:
    """The sampling parameter that guides a reply to its choices, by vLLM's version."""
    if not choices:
        return {}
    with contextlib.suppress(ImportError):
        from vllm.sampling_params import StructuredOutputsParams

        return {"structured_outputs": StructuredOutputsParams(choice=list(choices))}
    from vllm.sampling_params import GuidedDecodingParams

    return {"guided_decoding": GuidedDecodingParams(choice=list(choices))}


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _require_vllm() -> None:
    """Import vLLM: quiet, and without the statistics that it would send.

    Raises:
        ModelError: it is not installed.
    """
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        import vllm.v1.engine.async_llm  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"vLLM is not installed here ({error}): run `pip install 'qrelay[judge-vllm]'` on a machine with a GPU, "
            "try it on a CPU with `make test-vllm`, or choose another judge.backend"
        ) from error
