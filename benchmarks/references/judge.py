"""The judge beside llama.cpp itself (xllamacpp): the same model, prompts, order and prefix cache.

The bare way asks the engine for one token with log-probabilities a passage, one after the other, and throws the
answer away. Both read the same prompt tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import TOP_LOGPROBS
from qrelay.types import CandidateSet, Passage

LIBRARY = "llama.cpp"
CONTEXT_TOKENS = 4096
_STRATEGY: Any = make_strategy("graded", "0-3")


class Bare:
    """Candidate sets in, the engine's raw answers out."""

    def __init__(self, gguf: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_ctx, params.n_parallel, params.cache_ram_mib, params.verbosity = CONTEXT_TOKENS, 1, 0, -1
        self._server = xllamacpp.Server(params)

    def judge(self, each: CandidateSet) -> int:
        """The set's sampled passages; how many prompt tokens they had."""
        sampled = [candidate.passage for candidate in each.candidates if candidate.sampled]
        return sum(self._ask(each.query.text, passage) for passage in sampled)

    def _ask(self, query: str, passage: Passage) -> int:
        body = self._server.handle_chat_completions(
            {"messages": _STRATEGY.prompt(query, passage).messages(), "max_tokens": 1, "logprobs": True,
             "top_logprobs": TOP_LOGPROBS, "temperature": 0, "cache_prompt": True,
             "chat_template_kwargs": {"enable_thinking": False}}
        )  # fmt: skip
        return int(body["usage"]["prompt_tokens"])
