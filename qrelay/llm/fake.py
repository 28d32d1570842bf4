"""`fake`: an engine without a model, with every capability. Deterministic lexical overlap; waits where it is told to.

    score          the share of the query's words that the passage contains sets the likely grade
    loglikelihood  a target word that the passage holds costs 0.5 nats, one that only the context holds 3, any other 5
    generate       the choice whose words the user's message repeats most; without choices the sentence of the
                   message that shares most words with its question, in a JSON list where it asks for such strings

With `failure_rate`, that share of the questions (chosen by a hash of their texts, so always the same ones) fails
the first time that it is asked, and succeeds when asked again: what a retry must cope with.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.llm.base import Incapable, Weights
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
from qrelay.simulated import ServiceTime

_LEVELS = 16
_DECODING = "engine=fake;overlap"
_CHARS_PER_TOKEN = 4
_IN_PASSAGE, _IN_CONTEXT, _NOWHERE = -0.5, -3.0, -5.0
"""Natural log-probabilities of a target word."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"\w+")
# fmt: off
_STOPWORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from", "how", "i", "in", "is",
    "it", "my", "of", "on", "or", "the", "to", "what", "which", "with",
))
# fmt: on


class FakeBackend(Incapable):
    """See the module."""

    weights = Weights("fake-judge", "1", "none")
    capabilities = frozenset({TOKEN_LOGPROBS, PROMPT_LOGPROBS, GENERATION})
    notes: Mapping[str, str] = {}

    def __init__(self, failure_rate: float = 0.0, service_time_s: float = 0.0) -> None:
        """`failure_rate`: share of questions, 0 to 1, that fail when first asked; `service_time_s`: seconds that each
        call takes, one after another."""
        self.service_time = ServiceTime(service_time_s)
        self._threshold = int(failure_rate * 2**32)
        self._failed: set[int] = set()
        self.asked = 0
        """Questions of all kinds seen so far, for tests that count calls."""

    def decodings(self, capability: str) -> tuple[str, ...]:
        """The same for every kind of question."""
        return (_DECODING,) if capability in self.capabilities else ()

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt."""
        self.asked += len(prompts)
        await self.service_time.pass_by()
        return [self._failure(prompt.query, prompt.passage) or _score(prompt) for prompt in prompts]

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        """One answer a continuation; a log-probability a word of the target."""
        self.asked += len(continuations)
        await self.service_time.pass_by()
        return [self._failure(each.context, each.target) or _loglikelihood(each) for each in continuations]

    async def generate(self, chats: Sequence[Chat]) -> list[Reply | QrelayError]:
        """One reply a chat."""
        self.asked += len(chats)
        await self.service_time.pass_by()
        return [self._failure(*(content for _, content in chat.messages)) or _generate(chat) for chat in chats]

    def _failure(self, *texts: str) -> BackendUnavailable | None:
        if not self._threshold:
            return None
        question = 0
        for text in texts:
            question = zlib.crc32(text.encode(errors="replace"), question)
        if question >= self._threshold or question in self._failed:
            return None
        self._failed.add(question)
        return BackendUnavailable("the fake judge fails this question once, as judge.fake.failure_rate says")

    def learn(self, needs: frozenset[str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing to free."""


def _score(prompt: Prompt) -> TokenLogprobs:
    words = _content_words(prompt.query)
    held = words.intersection(prompt.passage.lower().split())
    level = _LEVELS * len(held) // max(1, len(words))
    return _grades(prompt.labels, level, len(prompt.passage) // _CHARS_PER_TOKEN + 1)


def _loglikelihood(each: Continuation) -> TargetLogprobs:
    """Where the raw texts are not given, the context is the passage."""
    context = frozenset(_words(each.context))
    passage = frozenset(_words(each.passage)) if each.query or each.passage else context
    target = _words(each.target) or [""]
    costs = [_IN_PASSAGE if w in passage else _IN_CONTEXT if w in context else _NOWHERE for w in target]
    return TargetLogprobs(tuple(costs), len(_words(each.context)) + len(target), _DECODING)


def _generate(chat: Chat) -> Reply:
    asked = next((content for role, content in reversed(chat.messages) if role == "user"), "")
    text = _chosen(chat.choices, asked) if chat.choices else _extract(asked)
    words = text.split()
    text = text if chat.choices else " ".join(words[: chat.max_tokens])
    text = json.dumps([text]) if "JSON list of strings" in asked else text
    prompt_tokens = sum(len(content) for _, content in chat.messages) // _CHARS_PER_TOKEN + 1
    return Reply(text, prompt_tokens, min(len(words), chat.max_tokens), _DECODING)


def _chosen(choices: Sequence[str], asked: str) -> str:
    """The choice whose words stand in the message most often, on average; ties go to the first."""
    counts = Counter(_words(asked))
    return max(choices, key=lambda choice: sum(counts[w] for w in _words(choice)) / max(1, len(_words(choice))))


def _extract(asked: str) -> str:
    """The sentence that shares most words with the message's question (its last sentence, where none asks)."""
    sentences = [each.strip() for each in _SENTENCE.split(asked) if each.strip()]
    if not sentences:
        return ""
    question = next((each for each in sentences if each.endswith("?")), sentences[-1])
    words = _content_words(question)
    others = [each for each in sentences if each != question] or [question]
    return max(others, key=lambda sentence: len(words.intersection(_words(sentence))))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


@lru_cache(maxsize=256)
def _content_words(query: str) -> frozenset[str]:
    words = frozenset(query.lower().replace("?", " ").replace(",", " ").split())
    return (words - _STOPWORDS) or words


@lru_cache(maxsize=8192)
def _grades(labels: tuple[str, ...], level: int, tokens: int) -> TokenLogprobs:
    """Grades spread around the one at `level` of `_LEVELS`: log-probabilities that sum to 1."""
    centre = (len(labels) - 1) * level / _LEVELS
    logits = [-2.0 * (i - centre) ** 2 for i in range(len(labels))]
    norm = math.log(math.fsum(map(math.exp, logits)))
    ranked = sorted(zip(labels, (x - norm for x in logits), strict=True), key=lambda each: -each[1])
    return TokenLogprobs(tuple(ranked), ranked[0][0], tokens, _DECODING)
