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

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qrelay.errors import BackendUnavailable, ModelError, QrelayError
from qrelay.llm.base import TOP_LOGPROBS, Weights
from qrelay.llm.exchange import GENERATION, Chat, Reply
from qrelay.llm.in_process import InProcess
from qrelay.llm.replies import without_thoughts
from qrelay.llm.tokens import Tokens
from qrelay.llm.weights_folder import weights_folder
from qrelay.models.dtypes import native_dtype
from qrelay.models.loading import ONE_AT_A_TIME
from qrelay.models.prepared import require_memory_for
from qrelay.models.safe import SAFETENSORS_ALONE
from qrelay.progress import step


class TransformersBackend(InProcess):
    """See the module. One worker thread of its own answers the calls in the order they came."""

    _remedy = "lower judge.transformers.batch_tokens"

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
        smaller: str = "",
    ) -> None:
        """Load the folder or GGUF at `path`; a GGUF is converted once, see `weights_folder`.

        dtype: "auto", "bfloat16", "float32". device: "auto" or PyTorch's name for one. threads: of the CPU, 0
        leaves PyTorch's choice. context_tokens: of one question. batch_tokens: computed at once, padding included.
        prefix_cache: off only to measure what it brings. smaller: what to do where there is no room to convert.

        Raises:
            ModelError: transformers is not installed or cannot load the weights.
        """
        self.weights = weights
        load = partial(self._load, path, dtype, device, context_tokens, batch_tokens, prefix_cache, smaller)
        self._start("transformers", load, prepare=partial(_set_threads, threads))

    def _load(
        self,
        path: Path,
        dtype: str,
        device: str,
        context_tokens: int,
        batch_tokens: int,
        prefix_cache: bool,
        smaller: str,
    ) -> None:
        try:
            from qrelay.llm.forward import Forward
        except ImportError as error:
            raise ModelError(f"{error.name} is not installed: run `pip install qrelay[judge]`") from error
        device, dtype = arithmetic(device, dtype)
        folder = weights_folder(path, self.weights.revision, dtype, smaller=smaller)
        if device == "cpu":
            require_memory_for(folder, f"{self.weights.model} in {dtype}", smaller)
        with step(f"loading {self.weights.model} in {dtype}"):
            self._model = _load_model(folder, dtype, device)
        self._tokens = Tokens.load(folder, context_tokens, "raise judge.transformers.context_tokens")
        self._rows = self._forward = Forward(self._model, batch_tokens=batch_tokens, prefix_cache=prefix_cache)
        self._decodings = self._tokens.decodings(f"engine=transformers;dtype={dtype}", top=f"{TOP_LOGPROBS}+labels")

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """One reply a chat, one after the other."""
        return await self._run(self._generate, chats)

    def _generate(self, chats: Sequence[Chat], cancelled: threading.Event) -> list[Reply | QrelayError]:
        return [
            BackendUnavailable("the call was cancelled") if cancelled.is_set() else self._reply(chat)
            for chat in chats
        ]

    def _reply(self, chat: Chat) -> Reply | QrelayError:
        query = self._tokens.of_chat(chat.as_messages(), room=chat.max_tokens)
        if isinstance(query, QrelayError):
            return query
        try:
            ids = self._greedy(query.ids, chat)
        except RuntimeError as error:
            return self._failed(error)
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
        super().close()
        self._model = None


def arithmetic(device: str, dtype: str) -> tuple[str, str]:
    """(device, dtype) that these settings mean on this machine."""
    import torch

    device = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return device, dtype if dtype != "auto" else native_dtype(device)


def _load_model(folder: Path, dtype: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        with ONE_AT_A_TIME:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), trust_remote_code=False, **SAFETENSORS_ALONE
            )
            return model.to(device).eval()
    except Exception as error:  # the library raises whatever the bytes provoke
        raise ModelError(
            f"transformers cannot load {folder} ({type(error).__name__}: {str(error)[:200]}): check that it is a "
            "folder of a causal language model that fits into memory (judge.model, judge.transformers.device)"
        ) from error


def _set_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
