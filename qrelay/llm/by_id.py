"""What a server that tells token ids is asked by them, and how its answers are read.

    tokenise   `/tokenize` beside /v1 (vLLM): a text's ids, or a chat's, rendered in the model's template
    labels     a completion with `logprob_token_ids`: the log-probabilities of exactly the labels' tokens
    share      `/generative_scoring` beside /v1: the probability of one token after a prompt of ids
    target     `/completions` with ids as the prompt and `prompt_logprobs`: of each token of a prompt

So labels are complete, whatever else the model would rather say, and a target has the same tokens after every context
(`tokens` does the same in this process). A reader gives None where the endpoint answered as if it had not been asked
so; `probing` tells such servers apart, and a label is never made of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from qrelay.errors import BackendUnavailable
from qrelay.llm.dialect import COMPLETIONS, Asked, Dialect
from qrelay.llm.exchange import Prompt, TargetLogprobs, TokenLogprobs
from qrelay.llm.replies import (
    BLANKS,
    IMPOSSIBLE,
    answered,
    as_logprob,
    encodable,
    first_shown,
    first_token,
    likeliest,
    read_choice,
    said,
    usage,
)

TOKENIZE: Final = "/tokenize"
SCORING: Final = "/generative_scoring"
VERSION: Final = "/version"
BESIDE: Final = frozenset({TOKENIZE, SCORING, VERSION})
"""Paths that stand where /v1 stands."""
_ID: Final = "token_id:"
"""How vLLM writes a token where it is asked for ids (`return_tokens_as_token_ids`)."""
_LACKING: Final = -9000.0
"""vLLM writes -9999 where it has no log-probability."""
_MOST_IDS: Final = 1 << 20

Table = Mapping[int, str]
"""Token id -> what it spells, of all tokens that spell a label."""


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A text as the server's tokenizer reads it. texts: as it shows each token; longest: tokens of its context."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    longest: int


def tokenise(dialect: Dialect, text: str, *, special: bool = False) -> Asked[Tokenised | None]:
    """A text; special: with the tokens that the model wants before every text."""
    given = {"prompt": encodable(text), "add_special_tokens": special, "return_token_strs": True}
    return Asked(TOKENIZE, {"model": dialect.model, **given}, read_tokens)


def tokenise_chat(dialect: Dialect, prompt: Prompt) -> Asked[Tokenised | None]:
    """A prompt up to where its reply begins."""
    if not dialect.chat:
        return tokenise(dialect, dialect.as_text(prompt), special=True)
    given = {"messages": prompt.messages(), "add_generation_prompt": True}
    return Asked(TOKENIZE, {"model": dialect.model, **given, **dialect.extra}, read_tokens)


def labels(dialect: Dialect, prompt: Prompt, table: Table) -> Asked[TokenLogprobs | None]:
    """The first token's log-probabilities of the table's tokens."""
    shown: dict[str, Any] = {"logprobs": True} if dialect.chat else {"logprobs": 1}
    shown |= {"logprob_token_ids": list(table), "return_tokens_as_token_ids": True}
    decoding = dialect.by_label_ids
    return dialect.completion(
        prompt.messages(), {"max_tokens": 1, **shown}, lambda body: read_labels(body, table, decoding)
    )


def share(dialect: Dialect, ids: Sequence[int], token: int) -> Asked[float | None]:
    """The probability of `token` after the prompt `ids`."""
    body = {
        "model": dialect.model,
        "query": list(ids[:-1]),
        "items": [list(ids[-1:])],
        "label_token_ids": [token],
        "apply_softmax": False,
        "add_special_tokens": False,
    }
    return Asked(SCORING, body, read_share)


def target(dialect: Dialect, ids: Sequence[int], begin: int) -> Asked[TargetLogprobs | None]:
    """The log-probabilities of the tokens of a prompt from `begin` on."""
    asked = {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    decoding = dialect.by_target_ids
    return dialect.request(
        COMPLETIONS, {"prompt": list(ids)}, asked, lambda body: read_target(body, ids, begin, decoding)
    )


def listed(spellings: Iterable[str]) -> str:
    """A text whose tokens are those of each spelling, in every case, after a blank and at a line's begin."""
    cased = dict.fromkeys(form for text in spellings for form in (text, text.upper(), text.lower(), text.title()))
    return "".join(f"\n{form} {form}" for form in cased)


def table_of(found: Tokenised, spellings: Iterable[str]) -> dict[int, str]:
    """The tokens of `listed(spellings)` that are one of the spellings as a whole, blanks aside."""
    wanted = {each.casefold() for each in spellings}
    shown = {token: text.strip(BLANKS) for token, text in zip(found.ids, found.texts, strict=True)}
    return {token: text for token, text in shown.items() if text.casefold() in wanted}


def read_tokens(body: Any) -> Tokenised | None:
    """The answer of `/tokenize`; None where it is that of another server's."""
    try:
        ids, texts = body["tokens"], body.get("token_strs")
        if not ids or not all(type(each) is int and 0 <= each < _MOST_IDS for each in ids):
            return None
        texts = [""] * len(ids) if texts is None else texts
        if len(texts) != len(ids):
            return None
        longest = body.get("max_model_len")
        return Tokenised(tuple(ids), tuple(map(str, texts)), longest if type(longest) is int else _MOST_IDS)
    except (KeyError, TypeError, AttributeError):
        return None


def read_labels(body: Any, table: Table, decoding: str) -> TokenLogprobs | None:
    """The first token's distribution over the table's tokens and the token that was chosen; nothing of the labels is
    unseen. None where one of them is lacking. Raises as `replies.read_completion`."""

    def read(choice: Any) -> TokenLogprobs | BackendUnavailable | None:
        text, thoughts = said(choice)
        tokens, _ = usage(body)
        if thoughts:
            return TokenLogprobs((), text or f"<think>{thoughts}", tokens, decoding)
        shown, _ = first_shown(choice.get("logprobs") or {})
        found = {each: logprob for token, logprob in shown if (each := _id_of(token)) is not None}
        if any(found.get(each, _LACKING) <= _LACKING for each in table):
            return None
        named = [(table.get(each, text), logprob) for each, logprob in found.items()]
        return first_token(tuple(sorted(named, key=likeliest)), text, tokens, decoding)

    answer = answered(read_choice(body, read))
    return answer and replace(answer, unseen=0.0)


def read_share(body: Any) -> float | None:
    """The probability that `/generative_scoring` answers."""
    try:
        (entry,) = body["data"]
        value = as_logprob(entry["score"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a score ({type(error).__name__})") from error
    return value if 0.0 <= value <= 1.0 + IMPOSSIBLE else None


def read_target(body: Any, ids: Sequence[int], begin: int, decoding: str) -> TargetLogprobs | None:
    """The log-probability of each of `ids` from `begin` on; None where they are lacking or another prompt's.

    Raises:
        ValueError, ContentFiltered, Unexplained: as `replies.read_completion`.
    """

    def read(choice: Any) -> TargetLogprobs | None:
        rows = choice.get("prompt_logprobs") or body.get("prompt_logprobs")
        if not rows or len(rows) != len(ids):
            return None
        entries = [rows[at].get(str(ids[at])) for at in range(begin, len(ids))]
        if not entries or not all(entries):
            return None
        values = tuple(as_logprob(each["logprob"]) for each in entries)
        if any(not _LACKING < value <= IMPOSSIBLE for value in values):
            raise ValueError("log-probabilities above 0, or none")
        return TargetLogprobs(values, len(ids), decoding)

    return read_choice(body, read)


def joined(shares: Mapping[int, float], table: Table, prompt_tokens: int, decoding: str) -> TokenLogprobs:
    """The distribution over the table's tokens from each one's own probability.

    Raises:
        ValueError: it is none.
    """
    found = ((table[each], math.log(max(share, 1e-300))) for each, share in shares.items())
    tokens = tuple(sorted(found, key=likeliest))
    return replace(answered(first_token(tokens, tokens[0][0], prompt_tokens, decoding)), unseen=0.0)


def _id_of(token: str) -> int | None:
    """The id in vLLM's way of writing it; None: it is a token's text."""
    digits = token.removeprefix(_ID)
    return int(digits) if digits != token and digits.isascii() and digits.isdigit() and len(digits) < 9 else None


def read_greedy_id(body: Any) -> tuple[int, float] | None:
    """The id and log-probability of a text completion's first token; None where it is not written as an id."""

    def read(choice: Any) -> tuple[int, float] | None:
        _, chosen = first_shown(choice.get("logprobs") or {})
        token = _id_of(chosen[0][0]) if chosen else None
        return None if token is None else (token, chosen[0][1])

    return read_choice(body, read)


def read_greedy_text(body: Any) -> tuple[str, float] | None:
    """The same by the token's text."""
    return read_choice(body, lambda choice: next(iter(first_shown(choice.get("logprobs") or {})[1]), None))
