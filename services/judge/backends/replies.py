"""Reading OpenAI's chat-completion JSON: what llama.cpp, vLLM and OpenAI-compatible endpoints answer."""

from __future__ import annotations

import math
from typing import Any

from qrelay.errors import Oversized
from services.judge.exchange import TokenLogprobs

_TOO_LONG = ("exceed_context_size_error", "context_length_exceeded", "maximum context length", "max_model_len")


def read_completion(body: Any, decoding: str) -> TokenLogprobs:
    """The first token's distribution, or the text where there is none.

    Raises:
        ValueError: `body` is not a chat completion.
    """
    try:
        choice = body["choices"][0]
        text = choice["message"].get("content") or ""
        usage = body.get("usage") or {}
        tokens = _tokens(choice.get("logprobs") or {})
        if not isinstance(text, str):
            raise TypeError("content is not text")
        return TokenLogprobs(tokens, text, int(usage.get("prompt_tokens") or 0), decoding)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a chat completion ({type(error).__name__})") from error


def _tokens(logprobs: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    content = logprobs.get("content") or ()
    if not content:
        return ()
    tokens = tuple((str(each["token"]), float(each["logprob"])) for each in content[0]["top_logprobs"])
    if any(math.isnan(logprob) or logprob > 1e-3 for _, logprob in tokens):
        raise ValueError("log-probabilities above 0")
    return tokens


def is_too_long(error: Any) -> bool:
    """Whether an error object says that the prompt does not fit the context."""
    shown = str(error)
    return any(sign in shown for sign in _TOO_LONG)


def too_long(error: Any, remedy: str) -> Oversized:
    """The error of a prompt that does not fit; `remedy` names what to change."""
    counts = error if isinstance(error, dict) else {}
    size = f"{counts['n_prompt_tokens']} tokens" if "n_prompt_tokens" in counts else "too many tokens"
    limit = f" of {counts['n_ctx']}" if "n_ctx" in counts else ""
    return Oversized(f"the prompt has {size} and does not fit the context{limit}: shorten the passages or {remedy}")
