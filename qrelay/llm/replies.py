"""Reading OpenAI's completion JSON: what llama.cpp, vLLM and OpenAI-compatible endpoints answer.

The one place where a reply becomes a distribution over first tokens (`first_token`). It never claims more than was
shown: what is no distribution (sums above 1, NaN, null) is refused, and what a list does not cover stays unseen.

A model that thinks before it answers must not be graded on its thoughts. Its first token is no answer, whatever
the other candidates for it are, so the distribution is dropped and the text, which no strategy reads as a grade,
stands in its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from qrelay.errors import BackendUnavailable, ContentFiltered, MalformedInput
from qrelay.http.refusals import Unexplained
from qrelay.llm.base import TOP_LOGPROBS
from qrelay.llm.exchange import Reply, TargetLogprobs, TokenLogprobs

T = TypeVar("T")

_THOUGHTS = re.compile(r"\s*(?:<think>|\[THINK\]).*?(?:</think>|\[/THINK\]|(?P<unclosed>\Z))\s*", re.DOTALL)
_OPENERS = ("<think", "[think]", "<|channel|>", "<seed:think")
"""How the models of Qwen and DeepSeek, Mistral, OpenAI and ByteDance begin to think; compared in lower case."""
_FILTERED = frozenset({"content_filter", "content_filtered", "safety", "prohibited_content", "blocklist", "refusal",
                       "recitation", "sensitive"})  # fmt: skip
"""Finish reasons, in lower case, of an answer that a filter withheld or cut."""
IMPOSSIBLE: Final = 1e-3
"""A log-probability above this is no rounding error."""
_MOST_MASS = 1.02
"""Probabilities that sum to more are none; bfloat16 rounds a log-probability by up to 0.4%."""
_MOST_TOKENS = 1 << 31
BLANKS: Final = " \t\r\n\u2581\u0120\u010a"
"""Blanks, and the blanks that some tokenisers show as a character (SentencePiece, byte-level BPE)."""

Tokens = tuple[tuple[str, float], ...]


def read_completion(body: Any, decoding: str, *, alone: str = "") -> TokenLogprobs:
    """The first token's distribution of a chat or text completion, or the text where there is none.

    alone: the decoding under which a first token counts whose alternatives are not shown; empty: its text does.

    Raises:
        ValueError: `body` is not a completion, or its log-probabilities are none.
        ContentFiltered, Unexplained: the answer was withheld.
    """

    def read(choice: Any) -> TokenLogprobs | BackendUnavailable:
        text, thoughts = said(choice)
        prompt_tokens, _ = usage(body)
        if thoughts:
            return TokenLogprobs((), text or f"<think>{thoughts}", prompt_tokens, decoding)
        listed, chosen = first_shown(choice.get("logprobs") or {})
        if listed:
            spelled = {token.strip() for token, _ in listed}
            shown = [*listed, *(each for each in chosen if each[0].strip() not in spelled)]
            return first_token(tuple(sorted(shown, key=likeliest)), text, prompt_tokens, decoding)
        if alone and chosen and chosen[0][0].strip() == text.strip():
            return first_token(chosen, text, prompt_tokens, alone)
        return TokenLogprobs((), text, prompt_tokens, decoding)

    return answered(read_choice(body, read))


def answered(answer: T | BackendUnavailable) -> T:
    """The answer, where it is one; its error is the reader's ValueError."""
    if isinstance(answer, BackendUnavailable):
        raise ValueError(f"not an answer: {answer}")
    return answer


def first_token(tokens: Tokens, text: str, prompt_tokens: int, decoding: str) -> TokenLogprobs | BackendUnavailable:
    """The answer with this distribution of its first token, best first, unless that token begins a thought (see the
    module); an error where it is no distribution. Of a list shorter than TOP_LOGPROBS the rest is unseen."""
    masses = [math.exp(min(logprob, 1.0)) for _, logprob in tokens]
    total = math.fsum(masses)
    if any(logprob > IMPOSSIBLE for _, logprob in tokens) or not total <= _MOST_MASS:
        return BackendUnavailable(
            f"the log-probabilities of the first token are none: {len(tokens)} of them give a sum of {total:.3g}"
        )
    if tokens and begins_thinking(tokens[0][0]):
        thought = text if begins_thinking(text) else tokens[0][0]
        return TokenLogprobs((), thought, prompt_tokens, decoding)
    unseen = max(0.0, 1.0 - total) if 0 < len(tokens) < TOP_LOGPROBS else 0.0
    return TokenLogprobs(tokens, text, prompt_tokens, decoding, unseen)


def read_reply(body: Any, decoding: str) -> Reply:
    """The text of a chat or text completion. Raises as `read_completion`."""

    def read(choice: Any) -> Reply:
        text, _ = said(choice)
        prompt_tokens, completion_tokens = usage(body)
        return Reply(without_thoughts(text), prompt_tokens, completion_tokens, decoding)

    return read_choice(body, read)


def read_echo(body: Any, prompt: str, target: str, decoding: str) -> TargetLogprobs | None:
    """The log-probabilities of `target`, with which the echoed `prompt` ends; None where none was echoed.

    The tokens are counted from the end, so that it does not matter how an endpoint shows a letter of the context
    that spans several tokens.

    Raises:
        ValueError, ContentFiltered, Unexplained: as `read_completion`.
        MalformedInput: a token stands across the target's begin.
    """

    def read(choice: Any) -> TargetLogprobs | None:
        echoed = choice.get("logprobs") or {}
        tokens, logprobs = echoed.get("tokens") or (), echoed.get("token_logprobs") or ()
        if prompt not in choice["text"] or not tokens:
            return None
        prompt_tokens = usage(body)[0] or len(tokens)
        count = _tokens_of(target, tokens[:prompt_tokens])
        values = tuple(as_logprob(each) for each in logprobs[prompt_tokens - count : prompt_tokens])
        if len(values) != count or any(value > IMPOSSIBLE or math.isnan(value) for value in values):
            raise ValueError("log-probabilities above 0, or too few")
        return TargetLogprobs(values, prompt_tokens, decoding)

    return read_choice(body, read)


def read_choice(body: Any, read: Callable[[Any], T]) -> T:
    """What `read` makes of a completion's choice; whatever is absent or of another type in it is a ValueError.

    Raises:
        ContentFiltered: a filter withheld the answer.
        Unexplained: there is no choice.
    """
    try:
        if not body["choices"]:
            raise _withheld(body)
        choice = body["choices"][0]
        reason = str(choice.get("finish_reason") or "").lower()
        refusal = (choice.get("message") or {}).get("refusal")
        if reason in _FILTERED or refusal:
            why = f"finish_reason {reason}" if reason in _FILTERED else "the model refused to answer"
            raise ContentFiltered(f"the endpoint filtered the answer ({why})")
        return read(choice)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a completion ({type(error).__name__})") from error


def _withheld(body: Any) -> ContentFiltered | Unexplained:
    """The error of a completion without a choice; some hosts say that a filter left none."""
    if body.get("prompt_filter_results") or body.get("promptFeedback") or body.get("prompt_feedback"):
        return ContentFiltered("the endpoint filtered the answer (no choice, with the prompt's filter results)")
    nothing = BackendUnavailable("the endpoint answers with no choice: check judge.model and judge.endpoint.url")
    return Unexplained("the endpoint answered with no choice, though it answers other requests", nothing)


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


def said(choice: Any) -> tuple[str, str]:
    """What a choice says, and what it thinks where the endpoint tells the two apart."""
    message = choice.get("message") or {"content": choice["text"]}
    content = message.get("content") or ""
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    if isinstance(content, list):  # parts: {"type": "thinking", …}, {"type": "text", "text": …}
        thoughts = thoughts or [part for part in content if part.get("type") == "thinking"]
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError("content is not text")
    return encodable(content), encodable(str(thoughts or ""))


def encodable(text: str) -> str:
    """Lone surrogates, which JSON may hold and nothing else may, replaced."""
    return text.encode("utf-8", "replace").decode()


def usage(body: Any) -> tuple[int, int]:
    """Tokens of the prompt and of the completion; 0 where that is not said, or is no number of tokens."""
    given = body.get("usage") or {}
    counts = (given.get("prompt_tokens"), given.get("completion_tokens"))
    prompt, completion = (int(n) if isinstance(n, int | float) and 0 <= n < _MOST_TOKENS else 0 for n in counts)
    return prompt, completion


def first_shown(logprobs: dict[str, Any]) -> tuple[Tokens, Tokens]:
    """The alternatives listed for the first token, and itself, each maybe none; of a chat completion ("content") or a
    text completion ("top_logprobs", by token)."""
    if content := logprobs.get("content"):
        listed = tuple((_token(each), as_logprob(each["logprob"])) for each in content[0].get("top_logprobs") or ())
        given = content[0].get("logprob")
        return listed, () if given is None else ((_token(content[0]), as_logprob(given)),)
    first = next(iter(logprobs.get("top_logprobs") or ()), None) or {}
    listed = tuple((str(token), as_logprob(value)) for token, value in first.items())
    tokens, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
    chosen = ((str(tokens[0]), as_logprob(values[0])),) if tokens and values and values[0] is not None else ()
    return listed, chosen


def _token(entry: Any) -> str:
    """The text of a token, from its bytes where they are whole letters: some hosts name tokens otherwise."""
    spelled = entry.get("bytes")
    try:
        return bytes(spelled).decode() if isinstance(spelled, list) and spelled else str(entry["token"])
    except (TypeError, ValueError):
        return str(entry["token"])


def as_logprob(value: Any) -> float:
    """A number as it is; whatever else it is, a TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a log-probability that is no number")
    return float(value)


def likeliest(entry: tuple[str, float]) -> float:
    """A key that sorts the likeliest token first."""
    return -entry[1]
