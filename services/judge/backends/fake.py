"""`fake`: the shipped double. Grades by lexical overlap, deterministic, no model, no waiting.

The share of the query's words that the passage contains sets the likely grade. With `failure_rate`, that
share of the pairs (chosen by a hash of their texts, so always the same ones) fails the first time that it
is asked, and succeeds when asked again: what a retry must cope with.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

from qrelay.errors import BackendUnavailable, QrelayError
from services.judge.backends.base import Weights
from services.judge.exchange import TOKEN_LOGPROBS, Prompt, TokenLogprobs

_LEVELS = 16
_DECODING = "engine=fake;overlap"
_CHARS_PER_TOKEN = 4
# fmt: off
_STOPWORDS = frozenset((
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from", "how", "i", "in", "is",
    "it", "my", "of", "on", "or", "the", "to", "what", "which", "with",
))
# fmt: on


class FakeBackend:
    """See the module."""

    weights = Weights("fake-judge", "1", "none")
    decodings = (_DECODING,)
    capabilities = frozenset({TOKEN_LOGPROBS})

    def __init__(self, failure_rate: float = 0.0) -> None:
        """`failure_rate`: share of pairs, 0 to 1, that fail when first asked."""
        self._threshold = int(failure_rate * 2**32)
        self._failed: set[int] = set()
        self.asked = 0
        """Prompts seen so far, for tests that count calls."""

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        """One answer a prompt."""
        self.asked += len(prompts)
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: Prompt) -> TokenLogprobs | QrelayError:
        if self._threshold and self._fails(prompt):
            return BackendUnavailable("the fake judge fails this pair once, as judge.fake.failure_rate says")
        words = _content_words(prompt.query)
        held = words.intersection(prompt.passage.lower().split())
        level = _LEVELS * len(held) // max(1, len(words))
        return _reply(prompt.labels, level, len(prompt.passage) // _CHARS_PER_TOKEN + 1)

    def _fails(self, prompt: Prompt) -> bool:
        pair = zlib.crc32(prompt.passage.encode(), zlib.crc32(prompt.query.encode()))
        if pair >= self._threshold or pair in self._failed:
            return False
        self._failed.add(pair)
        return True

    def close(self) -> None:
        """Nothing to free."""


@lru_cache(maxsize=256)
def _content_words(query: str) -> frozenset[str]:
    words = frozenset(query.lower().replace("?", " ").replace(",", " ").split())
    return (words - _STOPWORDS) or words


@lru_cache(maxsize=8192)
def _reply(labels: tuple[str, ...], level: int, tokens: int) -> TokenLogprobs:
    """Grades spread around the one at `level` of `_LEVELS`: log-probabilities that sum to 1."""
    centre = (len(labels) - 1) * level / _LEVELS
    logits = [-2.0 * (i - centre) ** 2 for i in range(len(labels))]
    norm = math.log(math.fsum(map(math.exp, logits)))
    ranked = sorted(zip(labels, (x - norm for x in logits), strict=True), key=lambda each: -each[1])
    return TokenLogprobs(tuple(ranked), ranked[0][0], tokens, _DECODING)
