"""Reading OpenAI's completion JSON: what llama.cpp, vLLM and OpenAI-compatible endpoints answer.

A model that thinks before it answers must not be graded on its thoughts. Its first token is no answer, whatever
the other candidates for it are, so the distribution is dropped and the text, which no strategy reads as a grade,
stands in its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from qrelay.errors import MalformedInput, Oversized
from qrelay.llm.exchange import Reply, TargetLogprobs, TokenLogprobs

_TOO_LONG = ("exceed_context_size_error", "context_length_exceeded", "maximum context length", "max_model_len")


_THOUGHTS = re.compile(r"\s*(?:<think>|\[THINK\]).*?(?:</think>|\[/THINK\]|(?P<unclosed>\Z))\s*", re.DOTALL)
_OPENERS = ("<think", "[think]", "<|channel|>", "<seed:think")
"""How the models of Qwen and DeepSeek, Mistral, OpenAI and ByteDance begin to think; compared in lower case."""
_IMPOSSIBLE = 1e-3
"""A log-probability above this is no rounding error."""

Tokens = tuple[tuple[str, float], ...]


def read_completion(body: Any, decoding: str) -> TokenLogprobs:
    """The first token's distribution of a chat or text completion, or the text where there is none.

    Raises:
        ValueError: `body` is not a completion.
    """
    try:
        choice = body["choices"][0]
        text, thoughts = _said(choice)
        tokens = _tokens(choice.get("logprobs") or {})
        prompt_tokens, _ = _usage(body)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a completion ({type(error).__name__})") from error
    if thoughts and not text:
        return TokenLogprobs((), f"<think>{thoughts}", prompt_tokens, decoding)
    return first_token(tokens, text, prompt_tokens, decoding)


def has_logprobs(body: Any) -> bool:
    """Whether a body holds log-probabilities, of an answer or of a thought."""
    try:
        found = body["choices"][0].get("logprobs") or {}
        return bool(found.get("content") or found.get("top_logprobs"))
    except (KeyError, IndexError, TypeError, AttributeError):
        return False


def first_token(tokens: Tokens, text: str, prompt_tokens: int, decoding: str) -> TokenLogprobs:
    """The answer with this distribution of its first token, unless that token begins a thought (see the module)."""
    if tokens and begins_thinking(tokens[0][0]):
        thought = text if begins_thinking(text) else tokens[0][0]
        return TokenLogprobs((), thought, prompt_tokens, decoding)
    return TokenLogprobs(tokens, text, prompt_tokens, decoding)


def read_reply(body: Any, decoding: str) -> Reply:
    """The text of a chat or text completion.

    Raises:
        ValueError: `body` is not a completion.
    """
    try:
        text, _ = _said(body["choices"][0])
        prompt_tokens, completion_tokens = _usage(body)
        return Reply(without_thoughts(text), prompt_tokens, completion_tokens, decoding)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a completion ({type(error).__name__})") from error


def read_echo(body: Any, prompt: str, target: str, decoding: str) -> TargetLogprobs | None:
    """The log-probabilities of `target`, with which the echoed `prompt` ends; None where none was echoed.

    The tokens are counted from the end, so that it does not matter how an endpoint shows a letter of the context
    that spans several tokens.

    Raises:
        ValueError: `body` is not a completion.
        MalformedInput: a token stands across the target's begin.
    """
    try:
        choice = body["choices"][0]
        echoed = choice.get("logprobs") or {}
        tokens, logprobs = echoed.get("tokens") or (), echoed.get("token_logprobs") or ()
        if prompt not in choice["text"] or not tokens:
            return None
        prompt_tokens = _usage(body)[0] or len(tokens)
        count = _tokens_of(target, tokens[:prompt_tokens])
        values = [float(each) for each in logprobs[prompt_tokens - count : prompt_tokens]]
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a completion with an echo ({type(error).__name__})") from error
    _check(values)
    return TargetLogprobs(tuple(values), prompt_tokens, decoding)


def _tokens_of(target: str, tokens: Sequence[str]) -> int:
    """How many of the last `tokens` spell `target`."""
    spelled = ""
    for count, token in enumerate(reversed(tokens), start=1):
        spelled = token + spelled
        if spelled == target:
            return count
        if not target.endswith(spelled):
            break
    raise MalformedInput("the endpoint's tokens do not begin where the target begins: begin it on a new line")


def without_thoughts(text: str) -> str:
    """The reply after a leading thought; empty where the thought does not end."""
    found = _THOUGHTS.match(text)
    return text[found.end() :] if found else text.strip()


def begins_thinking(text: str) -> bool:
    """Whether a reply begins with a thought."""
    return text.strip().lower().startswith(_OPENERS)


def _said(choice: Any) -> tuple[str, str]:
    """What a choice says, and what it thinks where the endpoint tells the two apart."""
    message = choice.get("message") or {"content": choice["text"]}
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("content is not text")
    return text, str(message.get("reasoning_content") or message.get("reasoning") or "")


def _usage(body: Any) -> tuple[int, int]:
    usage = body.get("usage") or {}
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)


def _tokens(logprobs: dict[str, Any]) -> Tokens:
    """Of a chat completion ("content") or a text completion ("top_logprobs")."""
    if logprobs.get("content"):
        tops = logprobs["content"][0]["top_logprobs"]
        tokens = tuple((str(each["token"]), float(each["logprob"])) for each in tops)
    else:
        first = next(iter(logprobs.get("top_logprobs") or ()), None) or {}
        tokens = tuple(sorted(((str(k), float(v)) for k, v in first.items()), key=lambda each: -each[1]))
    _check([logprob for _, logprob in tokens])
    return tokens


def _check(logprobs: list[float]) -> None:
    if any(math.isnan(logprob) or logprob > _IMPOSSIBLE for logprob in logprobs):
        raise ValueError("log-probabilities above 0")


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
